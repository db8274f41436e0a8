"""Hold a model's tables against the rules of joining, and find out which entities a tier takes."""

from collections.abc import Mapping

from blocks.engines.base import Engine
from blocks.lake.base import Lake
from tasks.shared.reads import Reads
from tasks.shared.rules.model.spec import DataSpec, ModelSpec
from tasks.shared.rules.rows.join_rules import (
    bucket_sql,
    check_tables,
    refuse_foreign_buckets,
    refuse_repeated,
    refuse_timeless,
    repeated_sql,
    timeless_sql,
)
from tasks.shared.rules.rows.joins import is_sampled, sql_names
from tasks.shared.rules.rows.tiers import (
    TierRule,
    how_many_strata_sql,
    refuse_many_strata,
    strata_bounds,
    strata_sql,
    tier_bound,
)

Files = Mapping[str, tuple[str, ...]]
"""The Parquet files of each table, by its name in SQL."""


def tier_rule(lake: Lake, engine: Engine, reads: Reads, spec: ModelSpec, tier: str) -> TierRule:
    """Return which entities the tier takes. A stratified tier counts them all: it reads two columns of every row.

    Raises:
        Refusal: no such tier, or the column to stratify by has too many values.
    """
    bound, column = tier_bound(spec.tiers, tier), spec.tiers.stratify_by
    rate = float(getattr(spec.tiers, tier))
    if not column or rate == 1:
        return TierRule(bound)
    everything = {"main": lake.files(reads.main)}
    refuse_many_strata(column, int(engine.query(how_many_strata_sql(column), everything)["strata"][0].as_py()))
    counts = engine.query(strata_sql(column), everything).select(["stratum", "bucket", "entities"])
    strata = strata_bounds(zip(*(values.to_pylist() for values in counts.columns), strict=True), rate)
    return TierRule(max(strata.values(), default=bound), column, strata)


def check_rows(engine: Engine, files: Files, data: DataSpec, rule: TierRule) -> None:
    """Look at the rows of a tier for what makes joins wrong.

    Raises:
        Refusal: a table is laid out by another key than the entity, keys repeat in a table without a time, or a
            row to be joined by time has none.
    """
    below = TierRule(rule.bound).condition()
    for table in sql_names(data):
        if rule.condition() and is_sampled(data, table):
            found = engine.query(bucket_sql(data, table), files)
            refuse_foreign_buckets(data, table, found["example"].to_pylist())
    for name, further in data.tables.items():
        if not further.time:
            found = engine.query(repeated_sql(data, name, below if is_sampled(data, name) else ""), files)
            refuse_repeated(data, name, found.to_pylist())
    if any(table.time for table in data.tables.values()):
        refuse_timeless(data, engine.query(timeless_sql(data, rule.condition()), files)["example"].to_pylist())


def count_rows(engine: Engine, files: Files, rule: TierRule) -> int:
    """Return how many rows of the main table the tier takes."""
    condition = rule.condition()
    sql = "SELECT count(*) AS found FROM main" + (f" WHERE {condition}" if condition else "")  # noqa: S608
    return int(engine.query(sql, files)["found"][0].as_py())


def check_reads(reads: Reads, data: DataSpec) -> None:
    """Hold the columns of the tables against `model.yaml`. Raises Refusal: see `check_tables`."""
    check_tables(data, reads.columns())

"""Hold a model's tables against the rules of joining, and find out which entities a tier takes."""

from collections.abc import Mapping

from blocks.engines.base import Engine
from blocks.lake.base import Lake
from tasks.shared.reads import TableReads
from tasks.shared.rules.model.spec import DataSpec, ModelSpec
from tasks.shared.rules.rows.join_rules import (
    check_tables,
    foreign_buckets_sql,
    refuse_foreign_buckets,
    refuse_repeated_keys,
    refuse_rows_without_time,
    repeated_keys_sql,
    rows_without_time_sql,
)
from tasks.shared.rules.rows.joins import is_tier_sampled, sql_table_names
from tasks.shared.rules.rows.tiers import (
    TierRule,
    count_strata_sql,
    refuse_too_many_strata,
    stratum_bucket_bounds,
    stratum_counts_sql,
    tier_bucket_bound,
)

TableFiles = Mapping[str, tuple[str, ...]]
"""The Parquet files of each table, by its name in SQL."""


def tier_rule(lake: Lake, engine: Engine, reads: TableReads, spec: ModelSpec, tier: str) -> TierRule:
    """Return which entities the tier takes. A stratified tier counts them all: it reads two columns of every row.

    Raises:
        Refusal: no such tier, or the column to stratify by has too many values.
    """
    bound, column = tier_bucket_bound(spec.tiers, tier), spec.tiers.stratify_by
    rate = float(getattr(spec.tiers, tier))
    if not column or rate == 1:
        return TierRule(bound)
    everything = {"main": lake.files(reads.main)}
    refuse_too_many_strata(column, int(engine.query(count_strata_sql(column), everything)["strata"][0].as_py()))
    counts = engine.query(stratum_counts_sql(column), everything).select(["stratum", "bucket", "entities"])
    strata = stratum_bucket_bounds(zip(*(values.to_pylist() for values in counts.columns), strict=True), rate)
    return TierRule(max(strata.values(), default=bound), column, strata)


def check_tier_rows(engine: Engine, files: TableFiles, data: DataSpec, rule: TierRule) -> None:
    """Look at the rows of a tier for what makes joins wrong.

    Raises:
        Refusal: a table is laid out by another key than the entity, keys repeat in a table without a time, or a
            row to be joined by time has none.
    """
    below = TierRule(rule.bound).condition()
    for table in sql_table_names(data):
        if rule.condition() and is_tier_sampled(data, table):
            found = engine.query(foreign_buckets_sql(data, table), files)
            refuse_foreign_buckets(data, table, found["example"].to_pylist())
    for name, further in data.tables.items():
        if not further.time:
            found = engine.query(repeated_keys_sql(data, name, below if is_tier_sampled(data, name) else ""), files)
            refuse_repeated_keys(data, name, found.to_pylist())
    if any(table.time for table in data.tables.values()):
        refuse_rows_without_time(
            data, engine.query(rows_without_time_sql(data, rule.condition()), files)["example"].to_pylist()
        )


def count_tier_rows(engine: Engine, files: TableFiles, rule: TierRule) -> int:
    """Return how many rows of the main table the tier takes."""
    condition = rule.condition()
    sql = "SELECT count(*) AS found FROM main" + (f" WHERE {condition}" if condition else "")  # noqa: S608
    return int(engine.query(sql, files)["found"][0].as_py())


def check_table_columns(reads: TableReads, data: DataSpec) -> None:
    """Hold the columns of the tables against `model.yaml`. Raises Refusal: see `check_tables`."""
    check_tables(data, reads.columns())

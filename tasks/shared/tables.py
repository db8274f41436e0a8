"""A model's tables: the snapshots that are read, the checks before joining, and the entities of a tier."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from blocks.engines.base import Engine
from blocks.lake.base import AsOf, Lake
from runtime.digests import text_digest
from tasks.shared.rules.model.data import MAIN_TABLE, DataSpec
from tasks.shared.rules.model.holdout import HoldoutRule
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.join_rules import (
    ColumnTypes,
    foreign_buckets_sql,
    refuse_foreign_buckets,
    refuse_repeated_keys,
    refuse_rows_without_side,
    refuse_rows_without_time,
    repeated_keys_sql,
    rows_without_sql,
)
from tasks.shared.rules.rows.joins import is_tier_sampled, sql_table_names
from tasks.shared.rules.rows.tiers import (
    CutOffs,
    TierRule,
    count_strata_sql,
    cut_off_sql,
    refuse_too_many_strata,
    stratum_bucket_bounds,
    stratum_counts_sql,
    tier_bucket_bound,
    training_condition,
)

VALUES_NOTE = "values"
"""The note of a snapshot with the version of its values' forms (`runtime.values`)."""


@dataclass(frozen=True)
class TableReads:
    """The fixed read of each table by its name in `model.yaml`; "" is the main table."""

    tables: Mapping[str, AsOf]

    @property
    def main(self) -> AsOf:
        """The read of the main table."""
        return self.tables[MAIN_TABLE]

    @property
    def joined(self) -> dict[str, AsOf]:
        """The reads of the joined tables, by name."""
        return {name: read for name, read in self.tables.items() if name != MAIN_TABLE}

    @property
    def digest(self) -> str:
        """SHA-256 over all reads; with one table, the digest of its read."""
        if not self.joined:
            return self.main.digest
        lines = "\n".join(f"{name} {read.dataset} {read.digest}" for name, read in self.tables.items())
        return text_digest(lines)

    @property
    def reread_as_of(self) -> str:
        """The as-of by which the same snapshots are read again: with one table its snapshot's id, else a time.

        The time is ISO 8601: when the newest of the snapshots was created.
        """
        if not self.joined:
            return self.main.id
        return max(read.snapshots[-1].created_at for read in self.tables.values()).isoformat()

    @property
    def values_version(self) -> str:
        """The version of the forms of all values; empty if a snapshot is of a release with other forms."""
        versions = {each.notes.get(VALUES_NOTE, "") for read in self.tables.values() for each in read.snapshots}
        return versions.pop() if len(versions) == 1 else ""

    def columns(self) -> dict[str, ColumnTypes]:
        """Return the columns of each table with their Arrow types as text."""
        return {name: dict(read.schema) for name, read in self.tables.items()}

    def files(self, lake: Lake, data: DataSpec, below_bucket: int) -> dict[str, tuple[str, ...]]:
        """Return the files that a tier needs, by the tables' names in SQL. Tables without the entity are read whole."""
        return {
            sql_name: lake.files(self.tables[name], below_bucket=below_bucket if is_tier_sampled(data, name) else None)
            for name, sql_name in sql_table_names(data).items()
        }


def resolve_reads(lake: Lake, data: DataSpec, as_of: str) -> TableReads:
    """Fix the snapshots to read.

    `as_of` is "" for the newest snapshot of each table; a time; or a snapshot's id of the main table, in which case the
    joined tables are read as of that snapshot's time.

    Raises:
        NotFound: there is no such data set or snapshot, or a table was empty at that time.
    """
    main = lake.as_of(data.dataset, as_of or None)
    when = as_of
    if data.tables and as_of == main.id:
        when = main.snapshots[-1].created_at.isoformat()
    return TableReads({MAIN_TABLE: main, **{n: lake.as_of(t.dataset, when or None) for n, t in data.tables.items()}})


TableFiles = Mapping[str, tuple[str, ...]]
"""The Parquet files of each table, by its name in SQL."""


def tier_rule(lake: Lake, engine: Engine, reads: TableReads, spec: ModelSpec, tier: str) -> TierRule:
    """Return the rule for the entities of the tier. For a stratified tier two columns of every row are read.

    Raises:
        Refusal: no such tier, or the column to stratify by has too many values.
    """
    bound, column = tier_bucket_bound(spec.tiers, tier), spec.tiers.stratify_by
    rate = float(getattr(spec.tiers, tier))
    if not column or rate == 1:
        return TierRule(bound, group=spec.data.group or "")
    everything = {"main": lake.files(reads.main)}
    refuse_too_many_strata(column, int(engine.query(count_strata_sql(column), everything)["strata"][0].as_py()))
    counts = engine.query(stratum_counts_sql(column), everything).select(["stratum", "bucket", "entities"])
    strata = stratum_bucket_bounds(zip(*(values.to_pylist() for values in counts.columns), strict=True), rate)
    return TierRule(max(strata.values(), default=bound), column, strata)


def check_tier_rows(engine: Engine, files: TableFiles, data: DataSpec, rule: TierRule) -> None:
    """Check the rows of a tier for what would make joins wrong.

    Raises:
        Refusal: a table's buckets are not those of the entity, keys repeat in a table without a time, or a row
            that is joined by time has none.
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
            data, engine.query(rows_without_sql(data, data.time or "", rule.condition()), files)["example"].to_pylist()
        )


def split_cut_offs(lake: Lake, engine: Engine, reads: TableReads, spec: ModelSpec, rule: HoldoutRule) -> CutOffs:
    """Return the cut-offs of the read, which are the same for all tiers. By time, one column of every row is read.

    Raises:
        Refusal: a row has no time or no group, or a cut-off is no time that Python can hold.
    """
    data, share = spec.data, spec.training.validation_share
    everything = {"main": lake.files(reads.main)}
    for column in filter(None, dict.fromkeys((rule.time, rule.group, data.group))):
        missing = engine.query(rows_without_sql(data, column), everything)["example"].to_pylist()
        refuse_rows_without_side(data, column, missing)
    if not rule.time:
        return CutOffs()

    def find(newest: float, within: str = "") -> datetime | None:
        found = engine.query(cut_off_sql(rule.time, newest, within), everything)["cut_off"][0]
        try:
            at: datetime | None = found.as_py()
        except (OverflowError, ValueError) as cause:
            where = f"data set {data.dataset}, column {rule.time!r}"
            raise Refusal("the cut-off is no time that can be used", where=where, value=str(cause)) from cause
        return at

    cut_off = datetime.fromisoformat(rule.since) if rule.since else find(rule.share or 0.0)
    if cut_off is None:
        raise Refusal(
            "there is no row to divide by time", where=f"data set {data.dataset}", remedy="Ingest rows first."
        )
    if not share:
        return CutOffs(cut_off)
    validation = find(share, training_condition(rule, data.entity, CutOffs(cut_off)))
    return CutOffs(cut_off, validation or cut_off)  # without a training row all parts but the holdout are empty


def count_tier_rows(engine: Engine, files: TableFiles, rule: TierRule) -> int:
    """Return how many rows of the main table are in the tier."""
    condition = rule.condition()
    sql = "SELECT count(*) AS found FROM main" + (f" WHERE {condition}" if condition else "")  # noqa: S608
    return int(engine.query(sql, files)["found"][0].as_py())

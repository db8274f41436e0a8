"""Which snapshots of a model's tables are read: fixed once, so that the same rows can be read again."""

from collections.abc import Mapping
from dataclasses import dataclass

from blocks.lake.base import AsOf, Lake
from runtime.digests import text_digest
from tasks.shared.rules.model.spec import MAIN_TABLE, DataSpec
from tasks.shared.rules.rows.join_rules import ColumnTypes
from tasks.shared.rules.rows.joins import is_tier_sampled, sql_table_names


@dataclass(frozen=True)
class TableReads:
    """The fixed read of each table, by its name in `model.yaml`; "" is the main one."""

    tables: Mapping[str, AsOf]

    @property
    def main(self) -> AsOf:
        """The read of the main table."""
        return self.tables[MAIN_TABLE]

    @property
    def joined(self) -> dict[str, AsOf]:
        """The reads of the further tables, by name."""
        return {name: read for name, read in self.tables.items() if name != MAIN_TABLE}

    @property
    def digest(self) -> str:
        """SHA-256 that fixes all reads; with one table, that of its read."""
        if not self.joined:
            return self.main.digest
        lines = "\n".join(f"{name} {read.dataset} {read.digest}" for name, read in self.tables.items())
        return text_digest(lines)

    @property
    def reread_time(self) -> str:
        """The time as of which the same snapshots are read again, ISO 8601; "" with one table: its id will do."""
        landed = [read.snapshots[-1].created_at for read in self.tables.values()] if self.joined else []
        return max(landed).isoformat() if landed else ""

    def columns(self) -> dict[str, ColumnTypes]:
        """Return of each table the columns that its snapshots hold, with their Arrow types as text."""
        return {name: dict(read.schema) for name, read in self.tables.items()}

    def files(self, lake: Lake, data: DataSpec, below_bucket: int) -> dict[str, tuple[str, ...]]:
        """Return the files that a tier needs, by the tables' names in SQL; tables of other keys are read whole."""
        return {
            known: lake.files(self.tables[name], below_bucket=below_bucket if is_tier_sampled(data, name) else None)
            for name, known in sql_table_names(data).items()
        }


def resolve_reads(lake: Lake, data: DataSpec, as_of: str) -> TableReads:
    """Fix which snapshots are read.

    Args:
        lake: where the tables lie.
        data: the tables.
        as_of: "" for the newest snapshot of each table, a time for what each held then, or a snapshot's id of
            the main table: then the further tables are read as of when that snapshot landed.

    Raises:
        NotFound: no such data set or snapshot, or nothing had landed at that time.
    """
    main = lake.as_of(data.dataset, as_of or None)
    when = as_of
    if data.tables and as_of == main.id:
        when = main.snapshots[-1].created_at.isoformat()
    return TableReads({MAIN_TABLE: main, **{n: lake.as_of(t.dataset, when or None) for n, t in data.tables.items()}})

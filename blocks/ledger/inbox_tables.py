"""The inbox's tables. Rows of all but one are only added; a lease is no record but a lock, and changes hands."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from blocks.ledger.tables import METADATA, Moment, guard


def _sequence() -> Column[int]:
    number = BigInteger().with_variant(Integer, "sqlite")
    return Column("sequence", number, primary_key=True, autoincrement=True)


def _texts(*names: str) -> list[Column[str]]:
    return [Column(name, Text, nullable=False) for name in names]


DELIVERIES = Table(
    "ratchet_deliveries",
    METADATA,
    _sequence(),
    Column("id", Text, nullable=False, unique=True),
    *_texts("sender", "event", "repository", "ref", "commit", "digest", "change"),
    Column("received_at", Moment, nullable=False),
    Index("ratchet_deliveries_digest", "sender", "digest"),
    Index("ratchet_deliveries_ref", "repository", "ref"),
    sqlite_autoincrement=True,
)
"""One row a delivery; the columns are the fields of `Delivery`."""

TURNS = Table(
    "ratchet_delivery_turns",
    METADATA,
    _sequence(),
    Column("delivery", Text, ForeignKey(DELIVERIES.c.id), nullable=False),
    Column("number", Integer, nullable=False),
    *_texts("asked_by"),
    Column("at", Moment, nullable=False),
    UniqueConstraint("delivery", "number"),
    sqlite_autoincrement=True,
)
"""One row a turn."""

ENDS = Table(
    "ratchet_delivery_ends",
    METADATA,
    Column("turn", BigInteger().with_variant(Integer, "sqlite"), ForeignKey(TURNS.c.sequence), primary_key=True),
    Column("state", String(8), nullable=False),
    *_texts("reason"),
    Column("at", Moment, nullable=False),
)
"""At most one row a turn: how it ended."""

RUNS = Table(
    "ratchet_delivery_runs",
    METADATA,
    _sequence(),
    Column("turn", BigInteger().with_variant(Integer, "sqlite"), ForeignKey(TURNS.c.sequence), nullable=False),
    Column("run_id", Text, nullable=False, unique=True),
    *_texts("rule", "deployment"),
    Index("ratchet_delivery_runs_turn", "turn"),
    sqlite_autoincrement=True,
)
"""One row a flow run that was started."""

REPORTS = Table(
    "ratchet_delivery_reports",
    METADATA,
    _sequence(),
    Column("run_id", Text, ForeignKey(RUNS.c.run_id), nullable=False),
    *_texts("said", "text"),
    Column("final", Boolean, nullable=False),
    Column("at", Moment, nullable=False),
    Index("ratchet_delivery_reports_run", "run_id", "final"),
    sqlite_autoincrement=True,
)
"""What was reported back of a run, line by line."""

NOTES = Table(
    "ratchet_delivery_notes",
    METADATA,
    _sequence(),
    *_texts("about", "kind", "text"),
    Column("at", Moment, nullable=False),
    sqlite_autoincrement=True,
)
"""The columns are the fields of `Note`."""

LEASES = Table(
    "ratchet_leases",
    METADATA,
    Column("name", Text, primary_key=True),
    *_texts("holder"),
    Column("number", BigInteger, nullable=False),
    Column("until", Moment, nullable=False),
)
"""Who may do what now."""

for _table in (DELIVERIES, TURNS, ENDS, RUNS, REPORTS, NOTES):
    guard(_table)

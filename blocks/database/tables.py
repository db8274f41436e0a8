"""The ledger's tables, as the SQL adapters query them. Alembic's revisions, in `migrations`, make and change them.

Rows are only added: the database itself refuses changes and deletions, by triggers that the revisions make. The
exception is a lease, which is no record but a lock, and changes hands.
"""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from blocks.database.types import Json, UtcTimestamp

METADATA = MetaData()
"""All tables of the ledger."""

_BIG = BigInteger().with_variant(Integer, "sqlite")


def _sequence() -> Column[int]:
    """Return the column that keeps the order in which rows were added; clocks may go back, it does not."""
    return Column("sequence", _BIG, primary_key=True, autoincrement=True)


def _texts(*names: str) -> list[Column[str]]:
    return [Column(name, Text, nullable=False) for name in names]


def _renamed(name: str, field: str) -> Column[str]:
    """Return a text column that holds a record's field under its older name; databases of earlier releases have it."""
    return Column(name, Text, key=field, nullable=False)


def _key(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, unique=True)


def _at(name: str = "at") -> Column[datetime]:
    return Column(name, UtcTimestamp, nullable=False)


EFFECTS = Table(
    "ratchet_effects",
    METADATA,
    _sequence(),
    *_texts("key"),
    Column("state", String(6), nullable=False),
    *_texts("text"),
    _at(),
    UniqueConstraint("key", "state"),
    sqlite_autoincrement=True,
)
"""Two rows an effect: `intent` with its detail, and `done` with its outcome."""

DEPLOYMENTS = Table(
    "ratchet_deployments",
    METADATA,
    _sequence(),
    _key("id"),
    *_texts("model", "environment", "version", "digest", "action", "status", "by", "reason", "request_id"),
    _at(),
    Index("ratchet_deployments_model", "environment", "model"),
    sqlite_autoincrement=True,
)
"""One row a line; the columns are the fields of `Deployment`."""

REQUESTS = Table(
    "ratchet_requests",
    METADATA,
    _sequence(),
    _key("id"),
    *_texts("model", "environment", "version", "digest", "evidence", "requested_by"),
    _at("requested_at"),
    _at("expires_at"),
    *_texts("flow_run_id"),
    Column("approvers", Json, nullable=False),
    Column("four_eyes", Boolean, nullable=False),
    Column("authors", Json, nullable=False),
    Column("approvals", Integer, nullable=False),
    Column("roles", Json, nullable=False),
    sqlite_autoincrement=True,
)
"""One row a request; the columns are the fields of `ApprovalRequest`."""

CHAIN_ENTRIES = Table(
    "ratchet_decision_chain",
    METADATA,
    Column("number", _BIG, primary_key=True, autoincrement=False),
    Column("kind", String(8), nullable=False),
    Column("request_id", Text, nullable=False, index=True),
    *_texts("body"),
    _key("previous"),
    _key("hash"),
    *_texts("key_id", "signature"),
)
"""One row a link; the columns are the fields of `ChainEntry`. A chain cannot fork: no two links follow the same one."""

SIGNALS = Table(
    "ratchet_signals",
    METADATA,
    _sequence(),
    _key("key"),
    *_texts("cause", "event", "state", "model", "environment", "severity", "owner"),
    _renamed("sentence", "summary"),
    _at(),
    Column("links", Json, nullable=False),
    _renamed("by", "acknowledged_by"),
    Index("ratchet_signals_by_cause", "cause"),
    sqlite_autoincrement=True,
)
"""One row a signal; the columns are the fields of `AlertRecord`."""

MESSAGES = Table(
    "ratchet_messages",
    METADATA,
    _sequence(),
    _key("id"),
    *_texts("cause", "occasion", "channel", "severity", "subject", "body"),
    _at(),
    sqlite_autoincrement=True,
)
"""One row a message; the columns are the fields of `AlertMessage`."""

SEND_ATTEMPTS = Table(
    "ratchet_attempts",
    METADATA,
    _sequence(),
    Column("message_id", Text, ForeignKey(MESSAGES.c.id), nullable=False),
    Column("number", Integer, nullable=False),
    Column("delivered", Boolean, nullable=False),
    _renamed("said", "error"),
    _at(),
    UniqueConstraint("message_id", "number"),
    sqlite_autoincrement=True,
)
"""One row an attempt; the columns are the fields of `SendAttempt`."""

DELIVERIES = Table(
    "ratchet_deliveries",
    METADATA,
    _sequence(),
    _key("id"),
    *_texts("sender", "event", "repository", "ref", "commit", "digest", "change"),
    _at("received_at"),
    Index("ratchet_deliveries_digest", "sender", "digest"),
    Index("ratchet_deliveries_ref", "repository", "ref"),
    sqlite_autoincrement=True,
)
"""One row a delivery; the columns are the fields of `Delivery`."""

PROCESSING_ATTEMPTS = Table(
    "ratchet_delivery_turns",
    METADATA,
    _sequence(),
    Column("delivery", Text, ForeignKey(DELIVERIES.c.id), nullable=False),
    Column("number", Integer, nullable=False),
    *_texts("asked_by"),
    _at(),
    UniqueConstraint("delivery", "number"),
    sqlite_autoincrement=True,
)
"""One row a turn."""

PROCESSING_OUTCOMES = Table(
    "ratchet_delivery_ends",
    METADATA,
    Column("turn", _BIG, ForeignKey(PROCESSING_ATTEMPTS.c.sequence), primary_key=True),
    Column("state", String(8), nullable=False),
    *_texts("reason"),
    _at(),
)
"""At most one row a turn: how it ended."""

STARTED_RUNS = Table(
    "ratchet_delivery_runs",
    METADATA,
    _sequence(),
    Column("turn", _BIG, ForeignKey(PROCESSING_ATTEMPTS.c.sequence), nullable=False),
    _key("run_id"),
    *_texts("rule", "deployment"),
    Index("ratchet_delivery_runs_turn", "turn"),
    sqlite_autoincrement=True,
)
"""One row a flow run that was started."""

RUN_REPORTS = Table(
    "ratchet_delivery_reports",
    METADATA,
    _sequence(),
    Column("run_id", Text, ForeignKey(STARTED_RUNS.c.run_id), nullable=False),
    *_texts("said", "text"),
    Column("final", Boolean, nullable=False),
    _at(),
    Index("ratchet_delivery_reports_run", "run_id", "final"),
    sqlite_autoincrement=True,
)
"""What was reported back of a run, line by line."""

NOTES = Table(
    "ratchet_delivery_notes",
    METADATA,
    _sequence(),
    _renamed("about", "subject_id"),
    *_texts("kind", "text"),
    _at(),
    sqlite_autoincrement=True,
)
"""The columns are the fields of `InboxNote`."""

LEASES = Table(
    "ratchet_leases",
    METADATA,
    Column("name", Text, primary_key=True),
    *_texts("holder"),
    Column("number", BigInteger, nullable=False),
    _at("until"),
)
"""Who may do what now."""

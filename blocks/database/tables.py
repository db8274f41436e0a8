"""The ledger's tables, as the SQL adapters query them. The revisions in `migrations` create and change them.

Rows are only added: the database itself refuses changes and deletions, by triggers of the revisions. The exception
is a lease, which is a lock and no record. Where a comment names a record, the columns are its fields.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from blocks.database.common import to_utc

Value = Mapping[str, str] | tuple[str, ...]


@dataclass(frozen=True)
class Unreadable:
    """What a column holds that this program would not have written. `Database.rows` refuses it, and names the row."""

    stored: object


class UtcTimestamp(TypeDecorator[datetime]):
    """A time as ISO 8601 text in UTC with microseconds: the same in every database, and in order as text."""

    impl = sa.String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> str | None:
        """Return the time as text."""
        return None if value is None else _time_text(value)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        """Return the text as a time in UTC; `Unreadable` if it is another text than this program writes."""
        if value is None:
            return None
        try:
            found = datetime.fromisoformat(value)
            return found if found.utcoffset() is not None and _time_text(found) == value else Unreadable(value)
        except (ValueError, TypeError, OverflowError):
            return Unreadable(value)


def _time_text(value: datetime) -> str:
    return to_utc(value).isoformat(timespec="microseconds")


class Flag(TypeDecorator[bool]):
    """A truth value; SQLite stores 0 or 1, or whatever else somebody put there."""

    impl = sa.Boolean
    cache_ok = True

    def result_processor(self, dialect: Any, coltype: Any) -> Callable[[Any], Any]:
        """Return the function that reads it: SQLAlchemy's own takes any value for a truth value."""
        return lambda value: bool(value) if type(value) in {int, bool} and value in {0, 1} else Unreadable(value)


class Json(TypeDecorator[Value]):
    """A tuple of texts as a JSON list, or texts by name as a JSON object."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Value | None, dialect: Any) -> str | None:
        """Return the value as JSON."""
        return None if value is None else json.dumps(value if isinstance(value, tuple) else dict(value))

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        """Return the value of the JSON text; a list comes back as a tuple, anything else as `Unreadable`."""
        if value is None:
            return None
        try:
            found = json.loads(value)
            texts = [*found.keys(), *found.values()] if isinstance(found, dict) else found
            if isinstance(found, list | dict) and all(isinstance(each, str) for each in texts):
                return tuple(found) if isinstance(found, list) else found
        except (ValueError, TypeError, RecursionError):
            pass
        return Unreadable(value)


METADATA = sa.MetaData()
"""All tables of the ledger."""

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _sequence() -> sa.Column[int]:
    """Return the column that keeps the order in which rows were added; clocks may go back, it does not."""
    return sa.Column("sequence", _BIG, primary_key=True, autoincrement=True)


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, unique=True)


def _at(name: str = "at") -> sa.Column[datetime]:
    return sa.Column(name, UtcTimestamp, nullable=False)


EFFECTS = sa.Table(
    "ratchet_effects",
    METADATA,
    _sequence(),
    *_texts("key"),
    sa.Column("state", sa.String(6), nullable=False),
    *_texts("text"),
    _at(),
    sa.UniqueConstraint("key", "state"),
    sqlite_autoincrement=True,
)
"""Two rows for each effect: `intent` with its detail, and `done` with its outcome."""

DEPLOYMENTS = sa.Table(
    "ratchet_deployments",
    METADATA,
    _sequence(),
    _key("id"),
    *_texts("model", "environment", "version", "digest", "action", "status", "by", "reason", "request_id"),
    _at(),
    *_texts("order_id"),
    sa.Index("ratchet_deployments_model", "environment", "model"),
    sqlite_autoincrement=True,
)
"""`Deployment`s."""

COMPARISONS = sa.Table(
    "ratchet_comparisons",
    METADATA,
    _sequence(),
    *_texts("model", "environment"),
    sa.Column("number", sa.Integer, nullable=False),
    *_texts("champion", "version", "terms", "holdout_digest", "predictions_digest"),
    sa.Column("level", sa.Double, nullable=False),
    sa.Column("budget", sa.Double, nullable=False),
    _at(),
    sa.UniqueConstraint("environment", "model", "number"),
    sqlite_autoincrement=True,
)
"""`Comparison`s. Each number is given once, so that two processes never spend the same part of a budget."""

REQUESTS = sa.Table(
    "ratchet_requests",
    METADATA,
    _sequence(),
    _key("id"),
    *_texts("model", "environment", "version", "digest", "evidence", "requested_by"),
    _at("requested_at"),
    _at("expires_at"),
    *_texts("flow_run_id"),
    sa.Column("approvers", Json, nullable=False),
    sa.Column("four_eyes", Flag, nullable=False),
    sa.Column("authors", Json, nullable=False),
    sa.Column("approvals", sa.Integer, nullable=False),
    sa.Column("roles", Json, nullable=False),
    sa.Column("requester_authenticated", Flag, nullable=False),
    sqlite_autoincrement=True,
)
"""`ApprovalRequest`s."""

CHAIN_ENTRIES = sa.Table(
    "ratchet_decision_chain",
    METADATA,
    sa.Column("number", _BIG, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(8), nullable=False, index=True),
    sa.Column("request_id", sa.Text, nullable=False, index=True),
    *_texts("body"),
    _key("previous"),
    _key("hash"),
    *_texts("key_id", "signature"),
)
"""`ChainEntry`s. A chain cannot fork: no two links follow the same one."""

SIGNALS = sa.Table(
    "ratchet_signals",
    METADATA,
    _sequence(),
    _key("key"),
    *_texts("cause", "event", "state", "model", "environment", "severity", "owner", "summary"),
    _at(),
    sa.Column("links", Json, nullable=False),
    *_texts("acknowledged_by", "order_id"),
    sa.Index("ratchet_signals_by_cause", "cause"),
    sqlite_autoincrement=True,
)
"""`AlertRecord`s."""

MESSAGES = sa.Table(
    "ratchet_messages",
    METADATA,
    _sequence(),
    _key("id"),
    *_texts("cause", "occasion", "channel", "severity", "subject", "body"),
    _at(),
    sqlite_autoincrement=True,
)
"""`AlertMessage`s."""

SEND_ATTEMPTS = sa.Table(
    "ratchet_attempts",
    METADATA,
    _sequence(),
    sa.Column("message_id", sa.Text, sa.ForeignKey(MESSAGES.c.id), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("delivered", Flag, nullable=False),
    *_texts("error"),
    _at(),
    sa.UniqueConstraint("message_id", "number"),
    sqlite_autoincrement=True,
)
"""`SendAttempt`s."""

DELIVERIES = sa.Table(
    "ratchet_deliveries",
    METADATA,
    _sequence(),
    _key("id"),
    *_texts("sender", "event", "repository", "ref", "commit", "digest", "change"),
    _at("received_at"),
    *_texts("seal"),
    sa.Index("ratchet_deliveries_digest", "sender", "digest"),
    sa.Index("ratchet_deliveries_ref", "repository", "ref"),
    sqlite_autoincrement=True,
)
"""`Delivery`s."""

PROCESSING_ATTEMPTS = sa.Table(
    "ratchet_delivery_turns",
    METADATA,
    _sequence(),
    sa.Column("delivery", sa.Text, sa.ForeignKey(DELIVERIES.c.id), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    *_texts("requested_by"),
    _at(),
    sa.UniqueConstraint("delivery", "number"),
    sqlite_autoincrement=True,
)
"""One row for each processing attempt (turn)."""

PROCESSING_OUTCOMES = sa.Table(
    "ratchet_delivery_ends",
    METADATA,
    sa.Column("turn", _BIG, sa.ForeignKey(PROCESSING_ATTEMPTS.c.sequence), primary_key=True),
    sa.Column("state", sa.String(8), nullable=False),
    *_texts("reason"),
    _at(),
)
"""At most one row for each turn: how it ended."""

STARTED_RUNS = sa.Table(
    "ratchet_delivery_runs",
    METADATA,
    _sequence(),
    sa.Column("turn", _BIG, sa.ForeignKey(PROCESSING_ATTEMPTS.c.sequence), nullable=False),
    _key("run_id"),
    *_texts("rule", "deployment"),
    sa.Index("ratchet_delivery_runs_turn", "turn"),
    sqlite_autoincrement=True,
)
"""One row for each flow run that was started."""

RUN_REPORTS = sa.Table(
    "ratchet_delivery_reports",
    METADATA,
    _sequence(),
    sa.Column("run_id", sa.Text, sa.ForeignKey(STARTED_RUNS.c.run_id), nullable=False),
    *_texts("status", "text"),
    sa.Column("final", Flag, nullable=False),
    _at(),
    sa.Index("ratchet_delivery_reports_run", "run_id", "final"),
    sqlite_autoincrement=True,
)
"""What was reported about a run, one row for each report."""

NOTES = sa.Table(
    "ratchet_delivery_notes",
    METADATA,
    _sequence(),
    *_texts("subject_id", "kind", "text"),
    _at(),
    sqlite_autoincrement=True,
)
"""`InboxNote`s."""

LEASES = sa.Table(
    "ratchet_leases",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    *_texts("holder"),
    sa.Column("number", sa.BigInteger, nullable=False),
    _at("until"),
)
"""Who holds which lease, and until when."""

SEALED_TABLES: Mapping[sa.Table, tuple[str, ...]] = {
    REQUESTS: ("id", "environment", "model"),
    DEPLOYMENTS: ("id", "environment", "model"),
    COMPARISONS: ("environment", "model", "number"),
    EFFECTS: ("key", "state"),
}
"""The tables whose rows decide: a link of the chain seals each row. The columns are those that rows are looked for by;
they identify a row."""

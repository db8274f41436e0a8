"""The ledger's tables, to which rows are only added: the database itself refuses changes and deletions.

Those of the inbox are in `inbox_tables`.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import (
    DDL,
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
    event,
)
from sqlalchemy.types import TypeDecorator

from blocks.ledger.rules import in_utc


class Moment(TypeDecorator[datetime]):
    """A moment as ISO 8601 text in UTC with microseconds: alike in every database, and in order as text."""

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> str | None:
        """Return the moment as text."""
        return None if value is None else in_utc(value).isoformat(timespec="microseconds")

    def process_result_value(self, value: str | None, dialect: Any) -> datetime | None:
        """Return the text as a moment in UTC."""
        return None if value is None else datetime.fromisoformat(value)


class Links(TypeDecorator[Mapping[str, str]]):
    """Labels and addresses as a JSON object."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Mapping[str, str] | None, dialect: Any) -> str | None:
        """Return the links as a JSON object."""
        return None if value is None else json.dumps(dict(value))

    def process_result_value(self, value: str | None, dialect: Any) -> Mapping[str, str] | None:
        """Return the links of a JSON object."""
        return None if value is None else json.loads(value)


class Names(TypeDecorator[tuple[str, ...]]):
    """A tuple of texts as a JSON list."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Any) -> str | None:
        """Return the names as a JSON list."""
        return None if value is None else json.dumps(list(value))

    def process_result_value(self, value: str | None, dialect: Any) -> tuple[str, ...] | None:
        """Return the names of a JSON list."""
        return None if value is None else tuple(json.loads(value))


METADATA = MetaData()
"""All tables of the ledger."""


def _sequence() -> Column[int]:
    """Return the column that keeps the order in which rows were added; clocks may go back, it does not."""
    number = BigInteger().with_variant(Integer, "sqlite")
    return Column("sequence", number, primary_key=True, autoincrement=True)


def _text(name: str, **options: Any) -> Column[str]:
    return Column(name, Text, nullable=False, **options)


EFFECTS = Table(
    "ratchet_effects",
    METADATA,
    _sequence(),
    _text("key"),
    Column("state", String(6), nullable=False),
    _text("text"),
    Column("at", Moment, nullable=False),
    UniqueConstraint("key", "state"),
    sqlite_autoincrement=True,
)
"""Two rows an effect: `intent` with its detail, and `done` with its outcome."""

REQUESTS = Table(
    "ratchet_requests",
    METADATA,
    _sequence(),
    _text("id", unique=True),
    *(_text(name) for name in ("model", "environment", "version", "digest", "evidence", "requested_by")),
    Column("requested_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    _text("flow_run_id"),
    Column("approvers", Names, nullable=False),
    Column("four_eyes", Boolean, nullable=False),
    Column("authors", Names, nullable=False),
    Column("approvals", Integer, nullable=False),
    Column("roles", Names, nullable=False),
    sqlite_autoincrement=True,
)
"""One row a request; the columns are the fields of `ApprovalRequest`."""

LINKS = Table(
    "ratchet_decision_chain",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("kind", String(8), nullable=False),
    _text("request_id", index=True),
    _text("body"),
    _text("previous", unique=True),
    _text("hash", unique=True),
    *(_text(name) for name in ("key_id", "signature")),
)
"""One row a link; the columns are the fields of `Link`. A chain cannot fork: no two links follow the same one."""

DEPLOYMENTS = Table(
    "ratchet_deployments",
    METADATA,
    _sequence(),
    _text("id", unique=True),
    *(_text(n) for n in ("model", "environment", "version", "digest", "action", "status", "by", "reason")),
    _text("request_id"),
    Column("at", Moment, nullable=False),
    sqlite_autoincrement=True,
)
"""One row a line; the columns are the fields of `Deployment`."""

SIGNALS = Table(
    "ratchet_signals",
    METADATA,
    _sequence(),
    _text("key", unique=True),
    *(_text(name) for name in ("cause", "event", "state", "model", "environment", "severity", "owner", "sentence")),
    Column("at", Moment, nullable=False),
    Column("links", Links, nullable=False),
    _text("by"),
    Index("ratchet_signals_by_cause", "cause"),
    sqlite_autoincrement=True,
)
"""One row a signal; the columns are the fields of `Signal`."""

MESSAGES = Table(
    "ratchet_messages",
    METADATA,
    _sequence(),
    _text("id", unique=True),
    *(_text(name) for name in ("cause", "occasion", "channel", "severity", "subject", "body")),
    Column("at", Moment, nullable=False),
    sqlite_autoincrement=True,
)
"""One row a message; the columns are the fields of `Message`."""

ATTEMPTS = Table(
    "ratchet_attempts",
    METADATA,
    _sequence(),
    Column("message_id", Text, ForeignKey(MESSAGES.c.id), nullable=False),
    Column("number", Integer, nullable=False),
    Column("delivered", Boolean, nullable=False),
    _text("said"),
    Column("at", Moment, nullable=False),
    UniqueConstraint("message_id", "number"),
    sqlite_autoincrement=True,
)
"""One row an attempt; the columns are the fields of `Attempt`."""

_SQLITE_GUARD = """
CREATE TRIGGER {table}_{what} BEFORE {what} ON {table}
BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END
"""
_POSTGRES_REFUSE = """
CREATE OR REPLACE FUNCTION ratchet_only_added_to() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the ledger is only added to'; END $$
"""
_POSTGRES_GUARD = """
CREATE TRIGGER {table}_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION ratchet_only_added_to()
"""


def _when_made(target: Table | MetaData, moment: str, dialect: str, statement: str) -> None:
    event.listen(target, moment, DDL(statement).execute_if(dialect=dialect))  # type: ignore[no-untyped-call]


_when_made(METADATA, "before_create", "postgresql", _POSTGRES_REFUSE)


def guard(table: Table) -> None:
    """Have the database itself refuse to change or delete rows of the table."""
    _when_made(table, "after_create", "postgresql", _POSTGRES_GUARD.format(table=table.name))
    for what in ("UPDATE", "DELETE"):
        _when_made(table, "after_create", "sqlite", _SQLITE_GUARD.format(table=table.name, what=what))


for _table in METADATA.sorted_tables:
    guard(_table)

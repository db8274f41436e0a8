"""The first tables of the ledger: approvals, effects, outbox and inbox.

This file is a copy of the tables at that time; it must not follow `blocks.database.tables`.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_METADATA = sa.MetaData()
_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_LEASES = "ratchet_leases"
"""The one table whose rows change."""


def upgrade() -> None:
    """Create the tables, and have the database refuse to change or delete their rows."""
    bind = op.get_bind()
    _METADATA.create_all(bind, checkfirst=False)
    if bind.dialect.name == "postgresql":
        op.execute(_POSTGRES_FUNCTION)
    for table in _METADATA.sorted_tables:
        if table.name != _LEASES:
            _guard(table.name, bind.dialect.name)


def _guard(table: str, dialect: str) -> None:
    if dialect == "postgresql":
        op.execute(
            f"CREATE TRIGGER {table}_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION ratchet_only_added_to()"
        )
        return
    for what in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_{what} BEFORE {what} ON {table} "
            "BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END"
        )


_POSTGRES_FUNCTION = """
CREATE OR REPLACE FUNCTION ratchet_only_added_to() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the ledger is only added to'; END $$
"""


def _table(name: str, *columns: sa.schema.SchemaItem, ordered: bool = True) -> None:
    sequence = [sa.Column("sequence", _BIG, primary_key=True, autoincrement=True)] if ordered else []
    sa.Table(name, _METADATA, *sequence, *columns, sqlite_autoincrement=ordered)


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, unique=True)


def _moment(name: str = "at") -> sa.Column[str]:
    return sa.Column(name, sa.String(32), nullable=False)


_table(
    "ratchet_effects",
    *_texts("key"),
    sa.Column("state", sa.String(6), nullable=False),
    *_texts("text"),
    _moment(),
    sa.UniqueConstraint("key", "state"),
)
_table(
    "ratchet_requests",
    _key("id"),
    *_texts("model", "environment", "version", "digest", "evidence", "requested_by"),
    _moment("requested_at"),
    _moment("expires_at"),
    *_texts("flow_run_id", "approvers"),
    sa.Column("four_eyes", sa.Boolean, nullable=False),
    *_texts("authors"),
    sa.Column("approvals", sa.Integer, nullable=False),
    *_texts("roles"),
)
_table(
    "ratchet_decision_chain",
    sa.Column("number", _BIG, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("request_id", sa.Text, nullable=False, index=True),
    *_texts("body"),
    _key("previous"),
    _key("hash"),
    *_texts("key_id", "signature"),
    ordered=False,
)
_table(
    "ratchet_deployments",
    _key("id"),
    *_texts("model", "environment", "version", "digest", "action", "status", "by", "reason", "request_id"),
    _moment(),
)
_table(
    "ratchet_signals",
    _key("key"),
    *_texts("cause", "event", "state", "model", "environment", "severity", "owner", "summary"),
    _moment(),
    *_texts("links", "acknowledged_by"),
    sa.Index("ratchet_signals_by_cause", "cause"),
)
_table(
    "ratchet_messages",
    _key("id"),
    *_texts("cause", "occasion", "channel", "severity", "subject", "body"),
    _moment(),
)
_table(
    "ratchet_attempts",
    sa.Column("message_id", sa.Text, sa.ForeignKey("ratchet_messages.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("delivered", sa.Boolean, nullable=False),
    *_texts("error"),
    _moment(),
    sa.UniqueConstraint("message_id", "number"),
)
_table(
    "ratchet_deliveries",
    _key("id"),
    *_texts("sender", "event", "repository", "ref", "commit", "digest", "change"),
    _moment("received_at"),
    sa.Index("ratchet_deliveries_digest", "sender", "digest"),
    sa.Index("ratchet_deliveries_ref", "repository", "ref"),
)
_table(
    "ratchet_delivery_turns",
    sa.Column("delivery", sa.Text, sa.ForeignKey("ratchet_deliveries.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    *_texts("requested_by"),
    _moment(),
    sa.UniqueConstraint("delivery", "number"),
)
_table(
    "ratchet_delivery_ends",
    sa.Column("turn", _BIG, sa.ForeignKey("ratchet_delivery_turns.sequence"), primary_key=True),
    sa.Column("state", sa.String(8), nullable=False),
    *_texts("reason"),
    _moment(),
    ordered=False,
)
_table(
    "ratchet_delivery_runs",
    sa.Column("turn", _BIG, sa.ForeignKey("ratchet_delivery_turns.sequence"), nullable=False),
    _key("run_id"),
    *_texts("rule", "deployment"),
    sa.Index("ratchet_delivery_runs_turn", "turn"),
)
_table(
    "ratchet_delivery_reports",
    sa.Column("run_id", sa.Text, sa.ForeignKey("ratchet_delivery_runs.run_id"), nullable=False),
    *_texts("status", "text"),
    sa.Column("final", sa.Boolean, nullable=False),
    _moment(),
    sa.Index("ratchet_delivery_reports_run", "run_id", "final"),
)
_table("ratchet_delivery_notes", *_texts("subject_id", "kind", "text"), _moment())
_table(
    _LEASES,
    sa.Column("name", sa.Text, primary_key=True),
    *_texts("holder"),
    sa.Column("number", sa.BigInteger, nullable=False),
    _moment("until"),
    ordered=False,
)

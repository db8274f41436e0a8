"""Record the comparisons of challengers with champions: the error budget depends on them.

This file is a copy of the table at that time; it must not follow `blocks.database.tables`.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_TABLE = "ratchet_comparisons"
_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TEXTS = ("champion", "version", "terms", "holdout_digest", "predictions_digest")


def upgrade() -> None:
    """Create the table, and have the database refuse to change or delete its rows."""
    op.create_table(
        _TABLE,
        sa.Column("sequence", _BIG, primary_key=True, autoincrement=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("model", "environment")),
        sa.Column("number", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in _TEXTS),
        sa.Column("level", sa.Double, nullable=False),
        sa.Column("budget", sa.Double, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.UniqueConstraint("environment", "model", "number"),
        sqlite_autoincrement=True,
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"CREATE TRIGGER {_TABLE}_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON {_TABLE} "
            "FOR EACH STATEMENT EXECUTE FUNCTION ratchet_only_added_to()"
        )
        return
    for what in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {_TABLE}_{what} BEFORE {what} ON {_TABLE} "
            "BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END"
        )

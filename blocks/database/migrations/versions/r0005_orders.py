"""Record by which order a rollback and an acknowledgement were made, and whether a requester was authenticated."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns; earlier rows have no order, and nobody authenticated their requesters."""
    for table in ("ratchet_deployments", "ratchet_signals"):
        op.add_column(table, sa.Column("order_id", sa.Text, nullable=False, server_default=""))
    requester = sa.Column("requester_authenticated", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("ratchet_requests", requester)

"""Record orders of rollbacks and acknowledgements, which requesters were authenticated, and seals of deliveries."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns; earlier rows have no order and no seal, and nobody authenticated their requesters."""
    for table in ("ratchet_deployments", "ratchet_signals"):
        op.add_column(table, sa.Column("order_id", sa.Text, nullable=False, server_default=""))
    op.add_column("ratchet_deliveries", sa.Column("seal", sa.Text, nullable=False, server_default=""))
    requester = sa.Column("requester_authenticated", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("ratchet_requests", requester)

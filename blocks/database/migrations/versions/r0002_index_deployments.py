"""Find the deployments of a model without reading those of all models: each flow run asks which version serves."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the index."""
    op.create_index("ratchet_deployments_model", "ratchet_deployments", ["environment", "model"])

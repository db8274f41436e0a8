"""Find the links of a kind: the first seal of a row asks for those before it.

Rows of earlier releases have no seal; `python -m ratchet audit adopt` adds them. A program of an earlier release does
not open a ledger of this revision: it would add rows without a seal.
"""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_ratchet_decision_chain_kind", "ratchet_decision_chain", ["kind"])

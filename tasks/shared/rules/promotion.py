"""Whether a version is promotable (trained on the full tier), and whether it may be promoted (deployed)."""

from tasks.shared.rules.rows.tiers import TIERS

PROMOTABLE_TIER = TIERS[-1]
"""The tier of all data: a model of a smaller one is an experiment."""


def is_promotable_tier(tier: str) -> bool:
    """Return whether a version that was trained on this tier is promotable: only one of the full tier is."""
    return tier == PROMOTABLE_TIER


def may_be_promoted(tier: str, verdict: str, *, waived: bool = False) -> bool:
    """Return whether a version may be promoted: it is promotable, and it passed or every failed gate is waived.

    The verdict is "" when nothing was evaluated. `waived` means that every failed gate has a valid waiver.
    """
    return is_promotable_tier(tier) and (verdict == "pass" or waived)

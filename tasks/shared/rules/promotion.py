"""Whether a model may be put into service, by the data that it was trained on and the verdict of its evaluation."""

from tasks.shared.rules.rows.tiers import TIERS

PROMOTABLE_TIER = TIERS[-1]
"""The tier of all data: a model of a smaller one is an experiment."""


def is_promotable_tier(tier: str) -> bool:
    """Whether a model that was trained on this tier may be put into service at all."""
    return tier == PROMOTABLE_TIER


def may_be_promoted(tier: str, verdict: str, *, waived: bool = False) -> bool:
    """Whether a model may be put into service: it saw all data, and it passed or what failed was waived.

    The verdict is "" where nothing was evaluated. `waived` means that waivers stand for every gate that failed.
    """
    return is_promotable_tier(tier) and (verdict == "pass" or waived)

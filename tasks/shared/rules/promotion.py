"""Whether a version is promotable (trained on the full tier), whether it may be promoted (deployed), and gate names."""

from collections.abc import Iterable

from tasks.shared.rules.rows.tiers import TIERS

PROMOTABLE_TIER = TIERS[-1]
"""The tier of all data: a model of a smaller one is an experiment."""


REPEATED_ROWS_GATE = "repeated rows"
"""The gate that holds a holdout whose rows also train."""


def feature_leak_gate(feature: str) -> str:
    """Return the name of the gate that holds a feature that alone predicts nearly perfectly."""
    return f"leak in {feature}"


def perfect_metric_gate(metric: str) -> str:
    """Return the name of the gate that holds a metric at its limit."""
    return f"perfect {metric}"


def leak_gates(task: str, features: Iterable[str]) -> tuple[str, ...]:
    """Return the names of all gates that a sign of a leak may hold."""
    metrics = ("r2",) if task == "regression" else ("auc", "accuracy")
    return (REPEATED_ROWS_GATE, *map(perfect_metric_gate, metrics), *map(feature_leak_gate, features))


def is_promotable_tier(tier: str) -> bool:
    """Return whether a version that was trained on this tier is promotable: only one of the full tier is."""
    return tier == PROMOTABLE_TIER


def may_be_promoted(tier: str, verdict: str, *, waived: bool = False) -> bool:
    """Return whether a version may be promoted: it is promotable, and it passed or every failed gate is waived.

    The verdict is "" when nothing was evaluated. `waived` means that every failed gate has a valid waiver.
    """
    return is_promotable_tier(tier) and (verdict == "pass" or waived)

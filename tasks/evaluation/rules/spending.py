"""The error budget of repeated comparisons: how much of it each comparison of a model may spend.

A comparison spends its level, which is the probability of a wrong `better`. The levels that are spent within any
365 days sum to at most the budget, so by Bonferroni's inequality the probability of one or more false promotions in
these days is at most the budget. The inequality holds whatever the dependence between the comparisons, so it also holds
when they ask the same holdout rows again and again. Spending: Lan and DeMets (Biometrika 1983); online testing: Foster
and Stine (JRSS B 2008), Tian and Ramdas (Statistical Methods in Medical Research 2021). `docs/decisions/0017` compares
the alternatives, with figures.

Half of the budget is available at once, and the other half accrues evenly over 365 days. What is not spent stays, up to
half of the budget. Only time refills it: neither a new champion nor new holdout rows do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ConfigDict

from blocks.records.comparisons import Comparison
from tasks.shared.rules.model.parts import ComparisonSpec

PERIOD_DAYS = 365.0

AVAILABLE_AT_ONCE = 0.5
"""Share of the budget that is available at once; it is also the most that may accumulate."""

DAILY_SHARE = 0.1
"""Share of what is available that the comparisons of one day spend, however many there are."""

LONGEST_WAIT_DAYS = 7.0
"""Days without a comparison that count towards the next one's share. A new champion's first comparison has them all."""


@dataclass(frozen=True)
class SpentLevel:
    """What one comparison spent of the error budget, for reports and evidence.

    Attributes:
        number: the place of this comparison among those with the same champion, from 1.
        champion: the version that the challenger is compared with.
        level: the one-sided level of this comparison.
        spent: sum of the levels in the 365 days up to this comparison, its own included.
        budget: the bound of that sum; 0 when the model has no budget.
        off_because: why it has none; "" when it has one.
    """

    number: int
    champion: str
    level: float
    spent: float
    budget: float
    off_because: str = ""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @property
    def sentence(self) -> str:
        """Number, level and budget in one sentence."""
        nth = f"It is comparison {self.number} with champion {self.champion}, at a level of {percent(self.level)}"
        if self.off_because:
            return f"{nth}, without an error budget: {self.off_because.rstrip('.')}."
        total = f"the levels of {PERIOD_DAYS:.0f} days sum to {percent(self.spent)}"
        return f"{nth}; {total}, of an error budget of {percent(self.budget)}."


def percent(share: float) -> str:
    """Return a share in percent with two significant digits: 0.000684 as `0.068 %`."""
    return f"{share * 100:.2g} %"


def available(history: Sequence[Comparison], budget: float, at: datetime) -> float:
    """Return how much of the budget may be spent at a time, given all earlier comparisons in the order of numbers.

    A clock that goes back accrues nothing.
    """
    most = budget * AVAILABLE_AT_ONCE
    each_day = (budget - most) / PERIOD_DAYS
    left, before = most, history[0].at if history else at
    for when, spent in [*((each.at, each.level) for each in history), (at, 0.0)]:
        left = min(most, left + each_day * max(0.0, _days(when - before)))
        left, before = max(0.0, left - spent), max(before, when)
    return left


def next_level(history: Sequence[Comparison], *, champion: str, budget: float, undivided: float, at: datetime) -> float:
    """Return the one-sided level of the next comparison with a champion.

    It is a share of what is available: 10 % for a day since the last comparison with this champion, less for a shorter
    time, and 52 % from seven days on or for the first one.

    Args:
        history: all earlier comparisons of the model in this environment, in the order of numbers.
        champion: the version to compare with.
        budget: what the levels of 365 days may sum to.
        undivided: the level without a budget, which is never exceeded.
        at: the time of the comparison.
    """
    last = max((each.at for each in history if each.champion == champion), default=None)
    days = LONGEST_WAIT_DAYS if last is None else min(LONGEST_WAIT_DAYS, max(0.0, _days(at - last)))
    share = 1 - math.pow(1 - DAILY_SHARE, days)
    return min(undivided, share * available(history, budget, at))


def plan_comparison(
    history: Sequence[Comparison], spec: ComparisonSpec, *, model: str, environment: str, champion: str,
    version: str, holdout_digest: str, predictions_digest: str, at: datetime,
) -> Comparison:  # fmt: skip
    """Return the comparison to record: the earlier one, when it asks the same question, or else a new one.

    The same version, or another one with the same predictions, asks the same question when champion, holdout rows,
    terms and budget are the same too. It spends nothing again: a retried task gets the level that it had.
    """
    terms = f"{spec.metric} {spec.rule}, margin {spec.margin!r}, confidence {spec.confidence!r}"
    budget = 0.0 if spec.repeated.off_because else spec.repeated.error_budget
    question = champion, terms, holdout_digest, budget
    for each in history:
        same = (each.champion, each.terms, each.holdout_digest, each.budget) == question
        if same and (each.version == version or each.predictions_digest == predictions_digest):
            return each
    level = undivided = (1 - spec.confidence) / 2
    if budget:
        level = next_level(history, champion=champion, budget=budget, undivided=undivided, at=at)
    number = len(history) + 1
    return Comparison(
        model, environment, number, champion, version, terms, holdout_digest, predictions_digest, level, budget, at
    )


def spent_level(history: Sequence[Comparison], comparison: Comparison, spec: ComparisonSpec) -> SpentLevel:
    """Return what a recorded comparison spent. `history` may hold later ones, which change nothing."""
    before = [each for each in history if each.number < comparison.number]
    recent = comparison.at - timedelta(days=PERIOD_DAYS)
    spent = comparison.level + sum(each.level for each in before if each.at > recent)
    number = 1 + sum(each.champion == comparison.champion for each in before)
    off_because = "" if comparison.budget else spec.repeated.off_because or ""
    return SpentLevel(number, comparison.champion, comparison.level, spent, comparison.budget, off_because)


def _days(span: timedelta) -> float:
    return span / timedelta(days=1)

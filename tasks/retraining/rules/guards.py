"""The guards of automatic retraining: it starts only when every guard passes.

Each guard is a function of the model's rules and the facts. All guards are evaluated, so that people see every
failed one at once. A guard whose fact is unknown fails.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from runtime.foreign_text import Markdown, markdown_table
from tasks.shared.rules.cost.budget import CostBreakdown, check_budget
from tasks.shared.rules.model.parts import BudgetSpec, RetrainingSpec
from tasks.shared.rules.refusal import Refusal

TriggerKind = Literal["drift", "quality"]


@dataclass(frozen=True)
class Unknown:
    """A fact that could not be found, and the reason. A guard that needs it fails."""

    reason: str


@dataclass(frozen=True)
class RetrainTrigger:
    """The alert that triggers a retraining: its kind, when it was raised, whether it is open, and its sentence."""

    kind: TriggerKind
    raised_at: datetime
    is_open: bool
    sentence: str

    @property
    def reason(self) -> str:
        """The reason of the retraining, for the approvers."""
        return f"{self.kind} of {self.raised_at:%Y-%m-%d}: {self.sentence}"


@dataclass(frozen=True)
class LabelledRows:
    """The number of labelled rows added since the champion's snapshot, and the newest label's time, if any."""

    new_rows: int
    newest_label_time: datetime | None


@dataclass(frozen=True)
class RetrainFacts:
    """The facts at `now`. All times have a zone.

    Attributes:
        now: the time of the decision.
        trigger: the alert.
        earlier_retrainings: the start times of earlier automatic retrainings, oldest first.
        deployed_at: the times of all deployments (each had an approval).
        deployed_since: when the deployed version was deployed or rolled back to; None without a version.
        pending_approvals: the undecided approval requests of the model, with their expiry times.
        rows: the labelled rows that arrived.
        costs: the worst-case cost of the run.
        budget: the model's budget.
    """

    now: datetime
    trigger: RetrainTrigger
    earlier_retrainings: tuple[datetime, ...]
    deployed_at: tuple[datetime, ...]
    deployed_since: datetime | None
    pending_approvals: tuple[tuple[str, datetime], ...]
    rows: LabelledRows | Unknown
    costs: CostBreakdown | Unknown
    budget: BudgetSpec


@dataclass(frozen=True)
class GuardResult:
    """The result of one guard: the value in words, its limit, and when the guard will pass.

    `passes_at` is the time at which the guard passes by the clock alone. When something else has to happen first, it
    is None, and `passes_when` describes the event.
    """

    guard: str
    passed: bool
    value: str
    limit: str
    passes_at: datetime | None = None
    passes_when: str = ""

    @property
    def passes_text(self) -> str:
        """When the guard will pass, in words; "" when it passes now."""
        if self.passed:
            return ""
        return f"{self.passes_at:%Y-%m-%d %H:%M %Z}" if self.passes_at else self.passes_when


def evaluate_guards(rules: RetrainingSpec, facts: RetrainFacts) -> tuple[GuardResult, ...]:
    """Return the result of every guard, in display order."""
    return tuple(guard(rules, facts) for guard in GUARDS)


def failed_guards(results: Sequence[GuardResult]) -> tuple[GuardResult, ...]:
    """Return the guards that failed. The retraining may start when there are none.

    Raises:
        ValueError: there are no results: no guard was evaluated.
    """
    if not results:
        raise ValueError("no guard was evaluated")
    return tuple(each for each in results if not each.passed)


def _automatic_guard(rules: RetrainingSpec, facts: RetrainFacts) -> GuardResult:
    until = "retraining.automatic in model.yaml is on"
    return GuardResult(
        "automatic retraining", rules.automatic, "on" if rules.automatic else "off", "on", passes_when=until
    )


def _trigger_guard(rules: RetrainingSpec, facts: RetrainFacts) -> GuardResult:
    kind = facts.trigger.kind
    until = f"{kind} is among retraining.triggers"
    return GuardResult("trigger", kind in rules.triggers, kind, ", ".join(rules.triggers), passes_when=until)


def _alert_guard(rules: RetrainingSpec, facts: RetrainFacts) -> GuardResult:
    """The alert must be open, be about the deployed version, and not have started a retraining yet."""
    trigger, since = facts.trigger, facts.deployed_since
    value = "open" if trigger.is_open else "closed"
    if since is None or since >= trigger.raised_at:
        value = "about a version that is no longer deployed"
    elif facts.earlier_retrainings and facts.earlier_retrainings[-1] >= trigger.raised_at:
        # An alert of the same monitoring run may have started it.
        value = f"a retraining started at {facts.earlier_retrainings[-1]:%Y-%m-%d %H:%M %Z}"
    return GuardResult("alert", value == "open", value, "open", passes_when="monitoring raises it again")


def _pending_approval_guard(rules: RetrainingSpec, facts: RetrainFacts) -> GuardResult:
    """No other challenger may be waiting for an approval."""
    pending = [(name, expires) for name, expires in facts.pending_approvals if expires > facts.now]
    value = f"{', '.join(name for name, _ in pending)} pending" if pending else "none pending"
    at = max((expires for _, expires in pending), default=None)
    return GuardResult(
        "pending approval", not pending, value, "none pending", passes_at=at, passes_when="it is decided"
    )


def _cool_down_guard(rules: RetrainingSpec, facts: RetrainFacts) -> GuardResult:
    limit = f"{rules.cool_down_hours:g} h"
    last = max((*facts.earlier_retrainings, *filter(None, [facts.deployed_since])), default=None)
    if last is None:
        return GuardResult("cool-down", True, "no earlier one", limit)
    rest = timedelta(hours=rules.cool_down_hours)
    value = f"{(facts.now - last) / timedelta(hours=1):,.1f} h since {last:%Y-%m-%d %H:%M %Z}"
    return GuardResult("cool-down", facts.now >= last + rest, value, limit, passes_at=last + rest)


def _unsuccessful_guard(rules: RetrainingSpec, facts: RetrainFacts) -> GuardResult:
    """Stop after too many automatic retrainings without an approved version. An approval, or time, resets the count."""
    window = timedelta(days=rules.unsuccessful_window_days)
    approved = max(facts.deployed_at, default=None)
    unsuccessful_starts = sorted(
        at for at in facts.earlier_retrainings if at > facts.now - window and (approved is None or at > approved)
    )
    limit = f"fewer than {rules.max_unsuccessful} in {rules.unsuccessful_window_days:g} days"
    value = f"{len(unsuccessful_starts)} without an approved version"
    too_many = len(unsuccessful_starts) >= rules.max_unsuccessful
    passes_at = unsuccessful_starts[-rules.max_unsuccessful] + window if too_many else None
    return GuardResult("unsuccessful retrainings", passes_at is None, value, limit, passes_at=passes_at)


def _new_rows_guard(rules: RetrainingSpec, facts: RetrainFacts) -> GuardResult:
    limit = f"{rules.min_new_labelled_rows:,} labelled rows since the champion's snapshot"
    if isinstance(facts.rows, Unknown):
        return GuardResult("new rows", False, f"unknown: {facts.rows.reason}", limit, passes_when="they can be counted")
    missing = rules.min_new_labelled_rows - facts.rows.new_rows
    return GuardResult(
        "new rows", missing <= 0, f"{facts.rows.new_rows:,}", limit, passes_when=f"{missing:,} more have arrived"
    )


def _label_age_guard(rules: RetrainingSpec, facts: RetrainFacts) -> GuardResult:
    limit = f"at most {rules.max_label_age_days:g} days old"
    if isinstance(facts.rows, Unknown):
        return GuardResult("label age", False, f"unknown: {facts.rows.reason}", limit, passes_when="they can be read")
    until, newest = "newer labels have arrived", facts.rows.newest_label_time
    if newest is None:
        return GuardResult("label age", False, "none", limit, passes_when=until)
    fresh = facts.now - newest <= timedelta(days=rules.max_label_age_days)
    return GuardResult("label age", fresh, f"{newest:%Y-%m-%d %H:%M %Z}", limit, passes_when=until)


def _budget_guard(rules: RetrainingSpec, facts: RetrainFacts) -> GuardResult:
    limit = f"{facts.budget.per_run_usd:,.2f} USD a run, {facts.budget.per_month_usd:,.2f} USD a month"
    if isinstance(facts.costs, Unknown):
        return GuardResult("budget", False, f"unknown: {facts.costs.reason}", limit, passes_when="its price is known")
    value = f"worst case {facts.costs.run.usd:,.2f} USD, this month {facts.costs.month_usd:,.2f} USD"
    if _within_budget(facts.costs, facts.budget):
        return GuardResult("budget", True, value, limit)
    next_month = _within_budget(replace(facts.costs, month_to_date_usd=0.0), facts.budget)
    at = _first_of_next_month(facts.now) if next_month else None
    return GuardResult("budget", False, value, limit, passes_at=at, passes_when="the owner raises the budget")


GUARDS: tuple[Callable[[RetrainingSpec, RetrainFacts], GuardResult], ...] = (
    _automatic_guard,
    _trigger_guard,
    _alert_guard,
    _pending_approval_guard,
    _cool_down_guard,
    _unsuccessful_guard,
    _new_rows_guard,
    _label_age_guard,
    _budget_guard,
)
"""All guards, in display order."""


def _within_budget(costs: CostBreakdown, budget: BudgetSpec) -> bool:
    try:
        check_budget(costs, budget, "")
    except Refusal:
        return False
    return True


def _first_of_next_month(now: datetime) -> datetime:
    first = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


def retrain_decision_sentence(trigger: RetrainTrigger, failed: Sequence[GuardResult]) -> str:
    """Return the decision: retraining started, or each failed guard with its value and when it passes."""
    if not failed:
        return f"Automatic retraining started because of {trigger.reason}"
    named = "; ".join(
        f"{each.guard}: {each.value} (required: {each.limit}; passes when: {each.passes_text})" for each in failed
    )
    return f"Not retrained because of {trigger.kind} of {trigger.raised_at:%Y-%m-%d}. Failed guards: {named}."


def guards_markdown(model: str, trigger: RetrainTrigger, results: Sequence[GuardResult]) -> Markdown:
    """Return the results of all guards as Markdown."""
    rows = [(f"{'✅' if e.passed else '⛔'} {e.guard}", e.value, e.limit, e.passes_text) for e in results]
    table = markdown_table(("guard", "value", "required", "passes when"), rows)
    return Markdown("## Automatic retraining of {}: guards\n\n{}\n\n{}\n").format(model, trigger.reason, table)

"""The guards of a retraining that nobody asked for: it starts only when every one of them allows it.

Each is a function of the model's rules and of the facts. All are asked, so that people see at once all that is in
the way. A guard that could not find out what it looks at does not allow.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from tasks.retraining.rules.facts import GuardResult, RetrainFacts, Unknown
from tasks.shared.rules.cost.budget import check_budget
from tasks.shared.rules.refusal import Refusal


class RetrainingRules(Protocol):
    """What a model allows; `retraining` of `model.yaml` is one."""

    @property
    def automatic(self) -> bool:
        """Whether it is ever retrained by itself."""

    @property
    def triggers(self) -> Sequence[str]:
        """What is answered: drift, quality."""

    @property
    def cool_down_hours(self) -> float:
        """Hours of rest after such a retraining, and after another version was put into service."""

    @property
    def max_unsuccessful(self) -> int:
        """So many such retrainings without an approved version."""

    @property
    def unsuccessful_window_days(self) -> float:
        """Days in which those are counted."""

    @property
    def min_new_labelled_rows(self) -> int:
        """So many labelled rows must have landed."""

    @property
    def max_label_age_days(self) -> float:
        """Days that the newest label may be old."""


def evaluate_guards(rules: RetrainingRules, facts: RetrainFacts) -> tuple[GuardResult, ...]:
    """Return what every guard says, in the order in which people look."""
    return tuple(guard(rules, facts) for guard in GUARDS)


def failed_guards(results: Sequence[GuardResult]) -> tuple[GuardResult, ...]:
    """Return the guards that do not allow it; with none it may start. Nothing said is no permission.

    Raises:
        ValueError: no guard was asked.
    """
    if not results:
        raise ValueError("no guard was asked")
    return tuple(each for each in results if not each.passed)


def _automatic_guard(rules: RetrainingRules, facts: RetrainFacts) -> GuardResult:
    until = "somebody sets retraining.automatic in model.yaml"
    return GuardResult("switch", rules.automatic, "on" if rules.automatic else "off", "on", passes_when=until)


def _trigger_guard(rules: RetrainingRules, facts: RetrainFacts) -> GuardResult:
    kind = facts.trigger.kind
    until = f"{kind} is among retraining.answers"
    return GuardResult("finding", kind in rules.triggers, kind, ", ".join(rules.triggers), passes_when=until)


def _alert_guard(rules: RetrainingRules, facts: RetrainFacts) -> GuardResult:
    """It must still be so, of the version that serves, and not answered yet."""
    trigger, since = facts.trigger, facts.deployed_since
    value = "open" if trigger.is_open else "over"
    if since is None or since >= trigger.raised_at:
        value = "of a version that serves no more"
    elif facts.earlier_retrainings and facts.earlier_retrainings[-1] >= trigger.raised_at:
        value = f"answered at {facts.earlier_retrainings[-1]:%Y-%m-%d %H:%M %Z}"  # as what the same look found besides
    return GuardResult("alert", value == "open", value, "open", passes_when="watching finds it again")


def _pending_approval_guard(rules: RetrainingRules, facts: RetrainFacts) -> GuardResult:
    """A challenger that waits for people is an answer already."""
    waiting = [(name, lapses) for name, lapses in facts.pending_approvals if lapses > facts.now]
    value = f"{', '.join(name for name, _ in waiting)} waits" if waiting else "none waits"
    at = max((lapses for _, lapses in waiting), default=None)
    return GuardResult("decision", not waiting, value, "none waits", passes_at=at, passes_when="it is decided")


def _cool_down_guard(rules: RetrainingRules, facts: RetrainFacts) -> GuardResult:
    limit = f"{rules.cool_down_hours:g} h"
    last = max((*facts.earlier_retrainings, *filter(None, [facts.deployed_since])), default=None)
    if last is None:
        return GuardResult("cool-down", True, "nothing before", limit)
    rest = timedelta(hours=rules.cool_down_hours)
    value = f"{_hours_text(facts.now - last)} since {last:%Y-%m-%d %H:%M %Z}"
    return GuardResult("cool-down", facts.now >= last + rest, value, limit, passes_at=last + rest)


def _unsuccessful_guard(rules: RetrainingRules, facts: RetrainFacts) -> GuardResult:
    """Retraining that does not help is not repeated for ever: whoever approves a version, or time, sets it free."""
    window = timedelta(days=rules.unsuccessful_window_days)
    approved = max(facts.deployed_at, default=None)
    unsuccessful_starts = sorted(
        at for at in facts.earlier_retrainings if at > facts.now - window and (approved is None or at > approved)
    )
    limit = f"fewer than {rules.max_unsuccessful} in {rules.unsuccessful_window_days:g} days"
    value = f"{len(unsuccessful_starts)} without an approved version"
    passes_at = (
        unsuccessful_starts[-rules.max_unsuccessful] + window
        if len(unsuccessful_starts) >= rules.max_unsuccessful
        else None
    )
    return GuardResult("in vain", passes_at is None, value, limit, passes_at=passes_at)


def _new_rows_guard(rules: RetrainingRules, facts: RetrainFacts) -> GuardResult:
    limit = f"{rules.min_new_labelled_rows:,} labelled rows since the champion's snapshot"
    if isinstance(facts.rows, Unknown):
        return GuardResult("new rows", False, f"unknown: {facts.rows.reason}", limit, passes_when="they can be counted")
    missing = rules.min_new_labelled_rows - facts.rows.new_rows
    return GuardResult(
        "new rows", missing <= 0, f"{facts.rows.new_rows:,}", limit, passes_when=f"{missing:,} more have landed"
    )


def _label_age_guard(rules: RetrainingRules, facts: RetrainFacts) -> GuardResult:
    limit = f"at most {rules.max_label_age_days:g} days old"
    if isinstance(facts.rows, Unknown):
        return GuardResult("labels", False, f"unknown: {facts.rows.reason}", limit, passes_when="they can be read")
    until, newest = "newer labels have landed", facts.rows.newest_label_time
    if newest is None:
        return GuardResult("labels", False, "none", limit, passes_when=until)
    fresh = facts.now - newest <= timedelta(days=rules.max_label_age_days)
    return GuardResult("labels", fresh, f"{newest:%Y-%m-%d %H:%M %Z}", limit, passes_when=until)


def _budget_guard(rules: RetrainingRules, facts: RetrainFacts) -> GuardResult:
    limit = f"{facts.budget.per_run_usd:,.2f} USD a run, {facts.budget.per_month_usd:,.2f} USD a month"
    if isinstance(facts.costs, Unknown):
        return GuardResult("budget", False, f"unknown: {facts.costs.reason}", limit, passes_when="its price is known")
    value = f"{facts.costs.run.usd:,.2f} USD, the month {facts.costs.month_usd:,.2f} USD at worst"
    if not _within_budget(facts, facts.costs.month_to_date_usd):
        at = _first_of_next_month(facts.now) if _within_budget(facts, 0.0) else None
        return GuardResult(
            "budget", False, value, limit, passes_at=at, passes_when="the owner allows more under budget"
        )
    return GuardResult("budget", True, value, limit)


GUARDS: tuple[Callable[[RetrainingRules, RetrainFacts], GuardResult], ...] = (
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
"""All of them, in the order in which they are shown."""


def _within_budget(facts: RetrainFacts, month_to_date: float) -> bool:
    if isinstance(facts.costs, Unknown):
        return False
    try:
        check_budget(replace(facts.costs, month_to_date_usd=month_to_date), facts.budget, "")
    except Refusal:
        return False
    return True


def _first_of_next_month(now: datetime) -> datetime:
    first = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


def _hours_text(time: timedelta) -> str:
    return f"{time / timedelta(hours=1):,.1f} h"

"""The guards of a retraining that nobody asked for: it starts only when every one of them allows it.

Each is a function of the model's rules and of the facts. All are asked, so that people see at once all that is in
the way. A guard that could not find out what it looks at does not allow.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from tasks.retraining.rules.facts import Facts, Said, Unknown
from tasks.shared.rules.cost.budget import check_budget
from tasks.shared.rules.refusal import Refusal


class Rules(Protocol):
    """What a model allows; `retraining` of `model.yaml` is one."""

    @property
    def automatic(self) -> bool:
        """Whether it is ever retrained by itself."""

    @property
    def answers(self) -> Sequence[str]:
        """What is answered: drift, quality."""

    @property
    def cool_down_hours(self) -> float:
        """Hours of rest after such a retraining, and after another version was put into service."""

    @property
    def most_in_vain(self) -> int:
        """So many such retrainings without an approved version."""

    @property
    def in_vain_days(self) -> float:
        """Days in which those are counted."""

    @property
    def new_rows(self) -> int:
        """So many labelled rows must have landed."""

    @property
    def labels_days(self) -> float:
        """Days that the newest label may be old."""


def weigh(rules: Rules, facts: Facts) -> tuple[Said, ...]:
    """Return what every guard says, in the order in which people look."""
    return tuple(guard(rules, facts) for guard in GUARDS)


def refusals(said: Sequence[Said]) -> tuple[Said, ...]:
    """Return the guards that do not allow it; with none it may start. Nothing said is no permission.

    Raises:
        ValueError: no guard was asked.
    """
    if not said:
        raise ValueError("no guard was asked")
    return tuple(each for each in said if not each.allows)


def _switch(rules: Rules, facts: Facts) -> Said:
    until = "somebody sets retraining.automatic in model.yaml"
    return Said("switch", rules.automatic, "on" if rules.automatic else "off", "on", until=until)


def _finding(rules: Rules, facts: Facts) -> Said:
    kind = facts.asked.kind
    until = f"{kind} is among retraining.answers"
    return Said("finding", kind in rules.answers, kind, ", ".join(rules.answers), until=until)


def _alert(rules: Rules, facts: Facts) -> Said:
    """It must still be so, of the version that serves, and not answered yet."""
    asked, since = facts.asked, facts.serving_since
    value = "open" if asked.is_open else "over"
    if since is None or since >= asked.at:
        value = "of a version that serves no more"
    elif facts.started and facts.started[-1] >= asked.at:
        value = f"answered at {facts.started[-1]:%Y-%m-%d %H:%M %Z}"  # as what the same look found besides
    return Said("alert", value == "open", value, "open", until="watching finds it again")


def _decision(rules: Rules, facts: Facts) -> Said:
    """A challenger that waits for people is an answer already."""
    waiting = [(name, lapses) for name, lapses in facts.waiting if lapses > facts.now]
    value = f"{', '.join(name for name, _ in waiting)} waits" if waiting else "none waits"
    at = max((lapses for _, lapses in waiting), default=None)
    return Said("decision", not waiting, value, "none waits", at=at, until="it is decided")


def _cool_down(rules: Rules, facts: Facts) -> Said:
    limit = f"{rules.cool_down_hours:g} h"
    last = max((*facts.started, *filter(None, [facts.serving_since])), default=None)
    if last is None:
        return Said("cool-down", True, "nothing before", limit)
    rest = timedelta(hours=rules.cool_down_hours)
    value = f"{_hours(facts.now - last)} since {last:%Y-%m-%d %H:%M %Z}"
    return Said("cool-down", facts.now >= last + rest, value, limit, at=last + rest)


def _in_vain(rules: Rules, facts: Facts) -> Said:
    """Retraining that does not help is not repeated for ever: whoever approves a version, or time, sets it free."""
    window = timedelta(days=rules.in_vain_days)
    approved = max(facts.approved, default=None)
    vain = sorted(at for at in facts.started if at > facts.now - window and (approved is None or at > approved))
    limit = f"fewer than {rules.most_in_vain} in {rules.in_vain_days:g} days"
    value = f"{len(vain)} without an approved version"
    free = vain[-rules.most_in_vain] + window if len(vain) >= rules.most_in_vain else None
    return Said("in vain", free is None, value, limit, at=free)


def _new_rows(rules: Rules, facts: Facts) -> Said:
    limit = f"{rules.new_rows:,} labelled rows since the champion's snapshot"
    if isinstance(facts.rows, Unknown):
        return Said("new rows", False, f"unknown: {facts.rows.why}", limit, until="they can be counted")
    missing = rules.new_rows - facts.rows.new
    return Said("new rows", missing <= 0, f"{facts.rows.new:,}", limit, until=f"{missing:,} more have landed")


def _labels(rules: Rules, facts: Facts) -> Said:
    limit = f"at most {rules.labels_days:g} days old"
    if isinstance(facts.rows, Unknown):
        return Said("labels", False, f"unknown: {facts.rows.why}", limit, until="they can be read")
    until, newest = "newer labels have landed", facts.rows.newest
    if newest is None:
        return Said("labels", False, "none", limit, until=until)
    fresh = facts.now - newest <= timedelta(days=rules.labels_days)
    return Said("labels", fresh, f"{newest:%Y-%m-%d %H:%M %Z}", limit, until=until)


def _budget(rules: Rules, facts: Facts) -> Said:
    limit = f"{facts.budget.per_run_usd:,.2f} USD a run, {facts.budget.per_month_usd:,.2f} USD a month"
    if isinstance(facts.bill, Unknown):
        return Said("budget", False, f"unknown: {facts.bill.why}", limit, until="its price is known")
    value = f"{facts.bill.training.usd:,.2f} USD, the month {facts.bill.month_usd:,.2f} USD at worst"
    if not _within(facts, facts.bill.month_to_date_usd):
        at = _next_month(facts.now) if _within(facts, 0.0) else None
        return Said("budget", False, value, limit, at=at, until="the owner allows more under budget")
    return Said("budget", True, value, limit)


GUARDS: tuple[Callable[[Rules, Facts], Said], ...] = (
    _switch,
    _finding,
    _alert,
    _decision,
    _cool_down,
    _in_vain,
    _new_rows,
    _labels,
    _budget,
)
"""All of them, in the order in which they are shown."""


def _within(facts: Facts, month_to_date: float) -> bool:
    if isinstance(facts.bill, Unknown):
        return False
    try:
        check_budget(replace(facts.bill, month_to_date_usd=month_to_date), facts.budget, "")
    except Refusal:
        return False
    return True


def _next_month(now: datetime) -> datetime:
    first = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


def _hours(time: timedelta) -> str:
    return f"{time / timedelta(hours=1):,.1f} h"

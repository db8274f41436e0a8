"""The guards of auto-retrain: it starts only when every guard allows it; each refusal says what, why and until when."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tasks.retraining.rules.guards import (
    GUARDS,
    GuardResult,
    LabelledRows,
    RetrainFacts,
    RetrainTrigger,
    Unknown,
    evaluate_guards,
    failed_guards,
    guards_markdown,
    retrain_decision_sentence,
)
from tasks.shared.rules.cost.budget import CostBreakdown, WorstCaseCost
from tasks.shared.rules.model.parts import BudgetSpec, RetrainingSpec

NOW = datetime(2026, 11, 25, 4, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FREE = CostBreakdown(WorstCaseCost(0.0, "none", is_paid=False), WorstCaseCost(0.0, "none", is_paid=False), 0.0)
ASKED = RetrainTrigger("drift", NOW - HOUR, True, "The rows differ: plan (new: 'Fir', 3.0%).")
RULES = RetrainingSpec(automatic=True)
GOOD = RetrainFacts(
    now=NOW, trigger=ASKED, earlier_retrainings=(), deployed_at=(NOW - 40 * DAY,), deployed_since=NOW - 40 * DAY, pending_approvals=(),
    rows=LabelledRows(1000, NOW - DAY), costs=FREE, budget=BudgetSpec(),
)  # fmt: skip


def paid(usd: float, month: float = 0.0, serving: float = 0.0) -> CostBreakdown:
    return CostBreakdown(
        WorstCaseCost(usd, f"{usd} USD", is_paid=True), WorstCaseCost(serving, f"{serving} USD", is_paid=True), month
    )


def in_the_way(rules: RetrainingSpec = RULES, **changes: object) -> list[str]:
    return [each.guard for each in failed_guards(evaluate_guards(rules, replace(GOOD, **changes)))]  # type: ignore[arg-type]


def test_it_starts_when_every_guard_allows_it() -> None:
    assert in_the_way() == []


def test_it_is_off_by_default() -> None:
    assert in_the_way(RetrainingSpec()) == ["automatic retraining"]


LATEST = replace(ASKED, raised_at=NOW - HOUR / 10)
REFUSED = {
    "a finding that is not to be answered": ({"trigger": replace(ASKED, kind="quality")}, "trigger", "quality"),
    "an alert that is over": ({"trigger": replace(ASKED, is_open=False)}, "alert", "closed"),
    "another version serves since": ({"deployed_since": NOW - HOUR}, "alert", "no longer deployed"),
    "nothing serves": ({"deployed_since": None}, "alert", "no longer deployed"),
    "answered together with another": ({"earlier_retrainings": (NOW - HOUR,)}, "alert", "a retraining started at 2026-11-25 03:00 UTC"),
    "a challenger waits": ({"pending_approvals": (("churn-3", NOW + DAY),)}, "pending approval", "churn-3 pending"),
    "too soon after another": ({"earlier_retrainings": (NOW - HOUR / 2,), "trigger": LATEST}, "cool-down", "0.5 h since 2026-11-25 03:30 UTC"),
    "too soon after a deployment": ({"deployed_since": NOW - HOUR / 2, "trigger": LATEST}, "cool-down", "0.5 h since"),
    "the clock went back": ({"earlier_retrainings": (NOW + HOUR,), "trigger": replace(ASKED, raised_at=NOW + 2 * HOUR)}, "cool-down", "-1.0 h since"),
    "thrice in vain": ({"earlier_retrainings": (NOW - 4 * DAY, NOW - 3 * DAY, NOW - 2 * DAY)}, "unsuccessful retrainings", "3 without an approved"),
    "too few rows": ({"rows": LabelledRows(999, NOW)}, "new rows", "999"),
    "fewer rows than before": ({"rows": LabelledRows(-5, NOW)}, "new rows", "-5"),
    "old labels": ({"rows": LabelledRows(1000, NOW - 8 * DAY)}, "label age", "2026-11-17"),
    "no labels": ({"rows": LabelledRows(1000, None)}, "label age", "none"),
    "no price": ({"costs": Unknown("no price for ml.x")}, "budget", "unknown: no price for ml.x"),
    "a run too dear": ({"costs": paid(2.0)}, "budget", "2.00 USD"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "guard", "value"), REFUSED.values(), ids=REFUSED)
def test_a_guard_refuses_by_name_with_what_it_saw_and_until_when(changes: dict, guard: str, value: str) -> None:
    rules = RULES.model_copy(update={"triggers": ("drift",), "cool_down_hours": 1.0})
    (only,) = failed_guards(evaluate_guards(rules, replace(GOOD, **changes)))
    assert (only.guard, value in only.value) == (guard, True), only
    assert only.passes_text and only.limit
    said = retrain_decision_sentence(GOOD.trigger, (only,))
    assert f"{guard}: {only.value}" in said and only.passes_text in said


def test_rows_that_cannot_be_counted_start_nothing() -> None:
    assert in_the_way(rows=Unknown("the snapshot is gone")) == ["new rows", "label age"]


def test_an_approved_version_sets_the_count_of_vain_ones_back() -> None:
    tried = (NOW - 5 * DAY, NOW - 4 * DAY, NOW - 3 * DAY)
    assert in_the_way(earlier_retrainings=tried) == ["unsuccessful retrainings"]
    assert in_the_way(earlier_retrainings=tried, deployed_at=(NOW - 3.5 * DAY,)) == []
    assert in_the_way(earlier_retrainings=tried, deployed_at=(NOW - 6 * DAY,)) == ["unsuccessful retrainings"]


def test_a_month_s_budget_that_is_spent_is_there_again_next_month() -> None:
    budget = BudgetSpec(per_run_usd=5, per_month_usd=20)
    (spent,) = failed_guards(evaluate_guards(RULES, replace(GOOD, costs=paid(5, month=16), budget=budget)))
    assert (spent.guard, spent.passes_at) == ("budget", datetime(2026, 12, 1, tzinfo=UTC))
    (never,) = failed_guards(evaluate_guards(RULES, replace(GOOD, costs=paid(5, serving=90), budget=budget)))
    assert (never.passes_at, never.passes_text) == (None, "the owner raises the budget")


def test_no_guard_asked_is_no_permission() -> None:
    with pytest.raises(ValueError, match="no guard"):
        failed_guards(())


def test_the_page_shows_every_guard_and_cannot_be_forged_by_a_value() -> None:
    asked = replace(ASKED, sentence="plan (new: '| ✅ | <b>\n# all well')")
    page = guards_markdown("churn", asked, evaluate_guards(RULES, replace(GOOD, trigger=asked)))
    assert page.count("\n| ✅") == len(GUARDS)
    assert "<b>" not in page and "\n# all well" not in page


TIMES = some.datetimes(datetime(2026, 9, 1), datetime(2026, 12, 31), timezones=some.just(UTC))
USD = some.floats(0, 50)
RULE = some.builds(
    RetrainingSpec,
    automatic=some.sampled_from([True, True, True, False]),
    triggers=some.sampled_from([("drift",), ("quality",), ("drift", "quality")]),
    cool_down_hours=some.floats(0, 200),
    max_unsuccessful=some.integers(1, 4),
    unsuccessful_window_days=some.floats(1, 90),
    min_new_labelled_rows=some.integers(1, 100),
    max_label_age_days=some.floats(0.5, 60),
)
FACT = some.builds(
    RetrainFacts,
    now=TIMES,
    trigger=some.builds(
        RetrainTrigger, some.sampled_from(["drift", "quality"]), TIMES, some.booleans(), some.just("It differs.")
    ),
    earlier_retrainings=some.lists(TIMES, max_size=6).map(sorted).map(tuple),
    deployed_at=some.lists(TIMES, max_size=3).map(tuple),
    deployed_since=some.none() | TIMES,
    pending_approvals=some.lists(some.tuples(some.just("churn-3"), TIMES), max_size=2).map(tuple),
    rows=some.just(Unknown("gone")) | some.builds(LabelledRows, some.integers(-10, 200), some.none() | TIMES),
    costs=some.sampled_from([FREE, Unknown("no price")]) | some.builds(paid, USD, USD, USD),
    budget=some.floats(0, 50).flatmap(lambda run: some.just(BudgetSpec(per_run_usd=run, per_month_usd=run + 30))),
)


@given(RULE, FACT)
def test_it_starts_only_when_what_each_guard_protects_is_so(rules: RetrainingSpec, facts: RetrainFacts) -> None:
    said = evaluate_guards(rules, facts)
    assert len({each.guard for each in said}) == len(said) == len(GUARDS)
    if failed_guards(said):
        return
    assert rules.automatic and facts.trigger.kind in rules.triggers and facts.trigger.is_open
    assert facts.deployed_since is not None and facts.deployed_since < facts.trigger.raised_at
    assert all(at < facts.trigger.raised_at for at in facts.earlier_retrainings)
    assert not [name for name, lapses in facts.pending_approvals if lapses > facts.now]
    rest = timedelta(hours=rules.cool_down_hours)
    assert all(facts.now - at >= rest for at in (*facts.earlier_retrainings, facts.deployed_since))
    since = max((facts.now - timedelta(days=rules.unsuccessful_window_days), *facts.deployed_at))
    assert sum(at > since for at in facts.earlier_retrainings) < rules.max_unsuccessful
    assert isinstance(facts.rows, LabelledRows) and facts.rows.new_rows >= rules.min_new_labelled_rows
    assert facts.rows.newest_label_time and facts.now - facts.rows.newest_label_time <= timedelta(
        days=rules.max_label_age_days
    )
    assert isinstance(facts.costs, CostBreakdown)
    if facts.costs.run.is_paid:
        assert facts.costs.run.usd <= facts.budget.per_run_usd
        assert facts.costs.month_usd <= facts.budget.per_month_usd


def _of(said: tuple[GuardResult, ...], guard: str) -> GuardResult:
    return next(each for each in said if each.guard == guard)


@given(RULE, FACT)
def test_a_refusal_has_a_value_a_limit_and_a_time_that_is_true(rules: RetrainingSpec, facts: RetrainFacts) -> None:
    for each in failed_guards(evaluate_guards(rules, facts)):
        assert each.value and each.limit and each.passes_text
        if each.passes_at is None:
            continue
        bill = replace(facts.costs, month_to_date_usd=0.0) if isinstance(facts.costs, CostBreakdown) else facts.costs
        then = replace(facts, now=each.passes_at, costs=bill if each.guard == "budget" else facts.costs)
        assert each.passes_at > facts.now
        assert _of(evaluate_guards(rules, then), each.guard).passed
        if each.guard != "budget":
            before = replace(facts, now=each.passes_at - timedelta(microseconds=1))
            assert not _of(evaluate_guards(rules, before), each.guard).passed


@given(RULE, FACT, some.integers(1, 30))
def test_it_ends_by_itself_while_nobody_approves(rules: RetrainingSpec, facts: RetrainFacts, nights: int) -> None:
    """Drift is found every night and nobody approves: no window has more unsuccessful retrainings than allowed."""
    rules = rules.model_copy(update={"automatic": True, "triggers": ("drift", "quality")})
    started: list[datetime] = []
    for night in range(nights):
        now = NOW + night * DAY
        asked = replace(ASKED, raised_at=now)
        found = replace(
            GOOD, now=now, trigger=asked, earlier_retrainings=tuple(started), rows=LabelledRows(10_000, now)
        )
        if not failed_guards(evaluate_guards(rules, found)):
            started.append(now)
    for first in started:
        window = [at for at in started if first <= at < first + timedelta(days=rules.unsuccessful_window_days)]
        assert len(window) <= rules.max_unsuccessful

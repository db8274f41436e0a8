"""Auto-retrain: one decision per alert, from ledger, lake and budget; a refusal is recorded."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks.common.errors import Unavailable
from blocks.records.compute import Compute
from blocks.trainers.fake import FakeTrainer
from tasks.retraining.rules.guards import LabelledRows, RetrainTrigger, Unknown
from tasks.retraining.tasks import (
    RETRAIN_REFUSED,
    RETRAIN_STARTED,
    decide_on_alert,
    gather_retrain_facts,
    labelled_rows_since,
)
from tasks.shared.alerts import emit_alert
from tasks.shared.cost import read_prices, worst_case_costs
from tasks.shared.models import TeamModel
from tasks.shared.records import AutoRetrainDecision
from tasks.shared.rules.model.parts import BudgetSpec, RetrainingSpec
from tasks.shared.rules.refusal import Refusal
from tests.fakes.environment import NOW, World
from tests.fixtures.approval_requests import evidence, request_over
from tests.fixtures.monitored import MODEL, UNTIL, houses, land, serving

DRIFT, QUALITY = "model.drift.detected", "model.quality.degraded"
LATER = NOW + timedelta(minutes=5)


def model(**rules: Any) -> TeamModel:
    """Return the model with auto-retrain enabled, for the rows that are in the tests' lake."""
    wanted = {"automatic": True, "min_new_labelled_rows": 500, "max_label_age_days": 3650.0, **rules}
    spec = MODEL.spec.model_copy(update={"retraining": RetrainingSpec(**wanted)})
    return replace(MODEL, spec=spec)


@pytest.fixture
def env(tmp_path: Path) -> World:
    made = serving(tmp_path)
    land(made, houses(600, seed=2, first=100_000), "second")
    return made


def drift(env: World, key: str = "look 1", **more: Any) -> None:
    emit_alert(env, DRIFT, model="price", sentence="The rows differ: rooms.", alert_record_key=key, now=NOW, **more)


def answer(env: World, key: str = "", now: datetime = LATER, **rules: Any) -> AutoRetrainDecision:
    return decide_on_alert(env, model(**rules), DRIFT, key, now)[0]


def written(env: World, event: str) -> list[str]:
    return [signal.summary for signal in env.outbox().signals(f"price/local/{event}")]


def test_a_drift_whose_guards_all_allow_it_is_answered_with_its_reason(env: World) -> None:
    drift(env)
    answered = answer(env)
    assert answered.outcome == "started", answered.summary
    assert answered.trigger_reason == "drift of 2026-11-26: The rows differ: rooms."
    assert answered.requested_by == "automation: model.drift.detected"
    assert answered.alert_record_key == "look 1"
    assert written(env, RETRAIN_STARTED) == [answered.summary]


def test_a_model_that_does_not_ask_for_it_is_left_alone(env: World) -> None:
    drift(env)
    answered, page = decide_on_alert(env, MODEL, DRIFT, "", LATER)
    assert (answered.outcome, page) == ("off", "")
    assert written(env, RETRAIN_STARTED) == written(env, RETRAIN_REFUSED) == []


def test_the_same_finding_is_decided_once_whatever_happened_since(env: World) -> None:
    drift(env)
    first = answer(env)
    drift(env, state="recovered", key="look 2")
    assert answer(env, "look 1", LATER + timedelta(days=9)) == first
    assert len(written(env, RETRAIN_STARTED)) == 1


def test_what_is_refused_is_written_down_with_its_guards_and_stays_refused(env: World) -> None:
    drift(env)
    refused = answer(env, min_new_labelled_rows=601)
    assert refused.outcome == "refused"
    assert "new rows: 600 (required: 601 labelled rows" in refused.summary
    assert "passes when: 1 more have arrived" in refused.summary
    assert answer(env) == refused
    assert (written(env, RETRAIN_REFUSED), written(env, RETRAIN_STARTED)) == ([refused.summary], [])


def test_the_next_finding_is_another_question(env: World) -> None:
    drift(env)
    assert answer(env, min_new_labelled_rows=601).outcome == "refused"
    drift(env, "look 2")
    assert answer(env).outcome == "started"
    drift(env, "look 3")
    third = answer(env)
    assert third.outcome == "refused"
    assert "cool-down" in third.summary


def test_drift_and_lost_quality_of_one_look_are_answered_together(env: World) -> None:
    drift(env)
    emit_alert(env, QUALITY, model="price", sentence="auc is 0.6.", alert_record_key="look 1, quality", now=NOW)
    assert answer(env, cool_down_hours=0.0).outcome == "started"
    second, _ = decide_on_alert(env, model(cool_down_hours=0.0), QUALITY, "", LATER)
    assert (second.outcome, second.requested_by) == ("refused", "automation: model.quality.degraded")
    assert "alert: a retraining started at" in second.summary and "quality of 20" in second.summary


def test_retraining_that_does_not_help_ends_and_people_are_warned(env: World) -> None:
    outcomes = []
    for night in range(5):
        drift(env, f"look {night}")
        outcomes.append(answer(env, now=LATER + timedelta(days=2 * night), max_unsuccessful=1).outcome)
    assert outcomes == ["started", *["refused"] * 4]
    warned = env.outbox().signals(f"price/local/{RETRAIN_REFUSED}")
    assert {each.severity for each in warned} == {"warning"}


def test_a_ledger_that_fails_while_the_decision_is_written_decides_nothing(env: World) -> None:
    drift(env)
    env.outbox().fail_writes = 1  # type: ignore[attr-defined]
    with pytest.raises(Unavailable):
        answer(env)
    assert written(env, RETRAIN_STARTED) == []
    assert answer(env).outcome == "started"
    assert len(written(env, RETRAIN_STARTED)) == 1


def test_an_event_that_no_look_wrote_down_starts_nothing(env: World) -> None:
    with pytest.raises(Refusal, match="no such alert"):
        answer(env)
    drift(env)
    with pytest.raises(Refusal, match="no such alert.*'forged'"):
        answer(env, "forged")
    assert written(env, RETRAIN_STARTED) == []


def test_what_is_over_or_waits_for_people_is_not_answered(env: World) -> None:
    drift(env)
    drift(env, "look 2", state="recovered")
    assert "alert: closed" in answer(env, "look 1").summary
    env.approvals().add_request(request_over(evidence()))
    drift(env, "look 3")
    assert "price-2 pending" in answer(env).summary


def test_paid_work_is_refused_above_the_budget_and_without_a_price(env: World, tmp_path: Path) -> None:
    dear = Compute(("ml.m5.large",), "us-east-1")
    env._adapters["trainer"] = FakeTrainer(root=tmp_path / "paid", fixed_compute=dear)
    drift(env)
    assert "budget: " in answer(env).summary
    env._adapters["trainer"] = FakeTrainer(root=tmp_path / "odd", fixed_compute=Compute(("ml.none",), "nowhere-1"))
    drift(env, "look 2")
    assert "budget: unknown:" in answer(env).summary


def test_backtests_count_as_trainings_of_the_budget(env: World, tmp_path: Path) -> None:
    dear = Compute(("ml.m5.large",), "us-east-1")
    env._adapters["trainer"] = FakeTrainer(root=tmp_path / "paid", fixed_compute=dear)
    spec = model().spec
    cost = worst_case_costs(env, MODEL, env.trainer(), read_prices(), LATER).run.usd
    once = spec.model_copy(update={"budget": BudgetSpec(per_run_usd=2 * cost, per_month_usd=1e6)})
    terms = spec.evaluation.model_copy(update={"backtests": 1})
    drift(env)
    refused = decide_on_alert(env, replace(MODEL, spec=once.model_copy(update={"evaluation": terms})), DRIFT, "", LATER)
    assert "budget: " in refused[0].summary
    drift(env, "look 2")
    assert "budget: " not in decide_on_alert(env, replace(MODEL, spec=once), DRIFT, "", LATER)[0].summary


def test_what_has_landed_is_counted_by_label(env: World) -> None:
    assert labelled_rows_since(env, MODEL.spec, "1", LATER).new_rows == 600
    land(env, houses(50, seed=3, first=200_000).assign(price=None), "unlabelled")
    assert labelled_rows_since(env, MODEL.spec, "1", LATER).new_rows == 600


def test_what_has_landed_is_dated_by_the_snapshot_that_brought_the_last_label(env: World) -> None:
    brought = env.lake().as_of("houses").snapshots[-1].created_at
    land(env, houses(50, seed=3, first=200_000).assign(price=None), "unlabelled")
    found = labelled_rows_since(env, MODEL.spec, "1", LATER)
    assert found == LabelledRows(600, brought)
    assert env.lake().as_of("houses").snapshots[-1].created_at > brought


def test_rows_of_the_future_do_not_make_labels_fresh(env: World) -> None:
    times = ["2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z", "2099-01-01T00:00:00Z"]
    land_timed = houses(3, seed=4, first=300_000).assign(asked_at=times)
    land(env, land_timed, "timed")
    data = MODEL.spec.data.model_copy(update={"time": "asked_at"})
    found = labelled_rows_since(env, MODEL.spec.model_copy(update={"data": data}), "1", UNTIL)
    assert found.newest_label_time == datetime.fromisoformat("2026-11-21T00:00:00Z")


def test_a_version_whose_snapshot_somebody_has_edited_allows_nothing(env: World) -> None:
    facts = gather_retrain_facts(env, model(), RetrainTrigger("drift", LATER, True, "It differs."), LATER)
    assert isinstance(facts.rows, LabelledRows)
    env.tracking().tag_version("price", "1", {"ratchet.snapshot": "00000009-aaaaaaaa"})
    with pytest.raises(Refusal, match="the registry says otherwise"):
        labelled_rows_since(env, MODEL.spec, "1", LATER)
    facts = gather_retrain_facts(env, model(), RetrainTrigger("drift", LATER, True, "It differs."), LATER)
    assert isinstance(facts.rows, Unknown)
    drift(env)
    assert "new rows: unknown: " in answer(env).summary

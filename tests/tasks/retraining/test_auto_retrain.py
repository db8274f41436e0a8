"""An alert is answered once, by what the ledger, the lake and the budget say; what is refused is written down."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks.common.compute import Compute
from blocks.common.errors import NotFound, Unavailable
from blocks.trainers.fake import FakeTrainer
from tasks.retraining.auto_retrain import REFUSED, STARTED, answer_signal, gather
from tasks.retraining.label_arrivals import landed_since
from tasks.retraining.rules.facts import Asked, Rows, Unknown
from tasks.shared.alerts import tell
from tasks.shared.models import Model
from tasks.shared.records import Answered
from tasks.shared.rules.model.parts import RetrainingSpec
from tasks.shared.rules.refusal import Refusal
from tests.tasks.approval.test_requests import evidence, request_over
from tests.tasks.monitoring.watched import MODEL, UNTIL, houses, land, serving
from tests.tasks.shared.test_champion import NOW, World

DRIFT, QUALITY = "model.drift.detected", "model.quality.degraded"
LATER = NOW + timedelta(minutes=5)


def model(**rules: Any) -> Model:
    """Return the model that retrains by itself, for what has landed in the tests' lake."""
    wanted = {"automatic": True, "new_rows": 500, "labels_days": 3650.0, **rules}
    spec = MODEL.spec.model_copy(update={"retraining": RetrainingSpec(**wanted)})
    return replace(MODEL, spec=spec)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = serving(tmp_path)
    land(made, houses(600, seed=2, first=100_000), "second")
    return made


def drift(world: World, key: str = "look 1", **more: Any) -> None:
    tell(world, DRIFT, model="price", sentence="The rows differ: rooms.", key=key, now=NOW, **more)


def answer(world: World, key: str = "", now: datetime = LATER, **rules: Any) -> Answered:
    return answer_signal(world, model(**rules), DRIFT, key, now)[0]


def written(world: World, event: str) -> list[str]:
    return [signal.sentence for signal in world.outbox().signals(f"price/local/{event}")]


def test_a_drift_whose_guards_all_allow_it_is_answered_with_its_reason(world: World) -> None:
    drift(world)
    answered = answer(world)
    assert answered.outcome == "Retraining", answered.sentence
    assert answered.because == "drift of 2026-11-26: The rows differ: rooms."
    assert answered.requested_by == "automation: model.drift.detected"
    assert answered.key == "look 1"
    assert written(world, STARTED) == [answered.sentence]


def test_a_model_that_does_not_ask_for_it_is_left_alone(world: World) -> None:
    drift(world)
    answered, page = answer_signal(world, MODEL, DRIFT, "", LATER)
    assert (answered.outcome, page) == ("Off", "")
    assert written(world, STARTED) == written(world, REFUSED) == []


def test_the_same_finding_is_decided_once_whatever_happened_since(world: World) -> None:
    drift(world)
    first = answer(world)
    drift(world, state="recovered", key="look 2")
    assert answer(world, "look 1", LATER + timedelta(days=9)) == first
    assert len(written(world, STARTED)) == 1


def test_what_is_refused_is_written_down_with_its_guards_and_stays_refused(world: World) -> None:
    drift(world)
    refused = answer(world, new_rows=601)
    assert refused.outcome == "Refused"
    assert "new rows: 600 (needed: 601 labelled rows" in refused.sentence
    assert "not until 1 more have landed" in refused.sentence
    assert answer(world) == refused
    assert (written(world, REFUSED), written(world, STARTED)) == ([refused.sentence], [])


def test_the_next_finding_is_another_question(world: World) -> None:
    drift(world)
    assert answer(world, new_rows=601).outcome == "Refused"
    drift(world, "look 2")
    assert answer(world).outcome == "Retraining"
    drift(world, "look 3")
    third = answer(world)
    assert third.outcome == "Refused"
    assert "cool-down" in third.sentence


def test_drift_and_lost_quality_of_one_look_are_answered_together(world: World) -> None:
    drift(world)
    tell(world, QUALITY, model="price", sentence="auc is 0.6.", key="look 1, quality", now=NOW)
    assert answer(world, cool_down_hours=0.0).outcome == "Retraining"
    second, _ = answer_signal(world, model(cool_down_hours=0.0), QUALITY, "", LATER)
    assert (second.outcome, second.requested_by) == ("Refused", "automation: model.quality.degraded")
    assert "alert: answered at" in second.sentence and "quality of 20" in second.sentence


def test_retraining_that_does_not_help_ends_and_people_are_warned(world: World) -> None:
    outcomes = []
    for night in range(5):
        drift(world, f"look {night}")
        outcomes.append(answer(world, now=LATER + timedelta(days=2 * night), most_in_vain=1).outcome)
    assert outcomes == ["Retraining", *["Refused"] * 4]
    warned = world.outbox().signals(f"price/local/{REFUSED}")
    assert {each.severity for each in warned} == {"warning"}


def test_a_ledger_that_fails_while_the_decision_is_written_decides_nothing(world: World) -> None:
    drift(world)
    world.outbox().fail_writes = 1  # type: ignore[attr-defined]
    with pytest.raises(Unavailable):
        answer(world)
    assert written(world, STARTED) == []
    assert answer(world).outcome == "Retraining"
    assert len(written(world, STARTED)) == 1


def test_an_event_that_no_look_wrote_down_starts_nothing(world: World) -> None:
    with pytest.raises(Refusal, match="no such alert"):
        answer(world)
    drift(world)
    with pytest.raises(Refusal, match="no such alert.*'forged'"):
        answer(world, "forged")
    assert written(world, STARTED) == []


def test_what_is_over_or_waits_for_people_is_not_answered(world: World) -> None:
    drift(world)
    drift(world, "look 2", state="recovered")
    assert "alert: over" in answer(world, "look 1").sentence
    world.approvals().request_approval(request_over(evidence()))
    drift(world, "look 3")
    assert "price-2 waits" in answer(world).sentence


def test_paid_work_is_refused_above_the_budget_and_without_a_price(world: World, tmp_path: Path) -> None:
    dear = Compute(("ml.m5.large",), "us-east-1")
    world._adapters["trainer"] = FakeTrainer(root=tmp_path / "paid", asks_for=dear)
    drift(world)
    assert "budget: " in answer(world).sentence
    world._adapters["trainer"] = FakeTrainer(root=tmp_path / "odd", asks_for=Compute(("ml.none",), "nowhere-1"))
    drift(world, "look 2")
    assert "budget: unknown:" in answer(world).sentence


def test_what_has_landed_is_counted_by_label_and_dated_by_the_snapshot_that_brought_the_last_one(world: World) -> None:
    assert landed_since(world, MODEL.spec, "1", LATER).new == 600
    brought = world.lake().as_of("houses").snapshots[-1].created_at
    land(world, houses(50, seed=3, first=200_000).assign(price=None), "unlabelled")
    found = landed_since(world, MODEL.spec, "1", LATER)
    assert found == Rows(600, brought)
    assert world.lake().as_of("houses").snapshots[-1].created_at > brought


def test_rows_of_the_future_do_not_make_labels_fresh(world: World) -> None:
    times = ["2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z", "2099-01-01T00:00:00Z"]
    land_timed = houses(3, seed=4, first=300_000).assign(asked_at=times)
    land(world, land_timed, "timed")
    data = MODEL.spec.data.model_copy(update={"time": "asked_at"})
    found = landed_since(world, MODEL.spec.model_copy(update={"data": data}), "1", UNTIL)
    assert found.newest == datetime.fromisoformat("2026-11-21T00:00:00Z")


def test_a_version_that_the_registry_does_not_know_allows_nothing(world: World) -> None:
    facts = gather(world, model(), Asked("drift", LATER, True, "It differs."), LATER)
    assert isinstance(facts.rows, Rows)
    world.tracking().tag_version("price", "1", {"ratchet.snapshot": "00000009-aaaaaaaa"})
    with pytest.raises(NotFound):
        landed_since(world, MODEL.spec, "1", LATER)
    facts = gather(world, model(), Asked("drift", LATER, True, "It differs."), LATER)
    assert isinstance(facts.rows, Unknown)
    drift(world)
    assert "new rows: unknown: " in answer(world).sentence

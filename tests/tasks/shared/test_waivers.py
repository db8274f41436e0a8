"""Waivers: only a recorded waiver of an entitled person, with a reason and an end, opens a failed gate."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks.common.trust import ApprovalSettings
from blocks.records.approvals import Waiver
from blocks.records.people import Person
from tasks.approval.requests import submit_decision
from tasks.approval.rules.actions import Actor
from tasks.approval.rules.policy import waivable_gates
from tasks.release.deployment import verify_approval
from tasks.shared.code import unapproved_authors
from tasks.shared.models import load_model
from tasks.shared.rules.refusal import Refusal
from tasks.shared.waivers import record_waiver, valid_waivers
from tests.fakes.environment import NOW, World
from tests.fixtures.approval_requests import FIRST, JUDGED, TRAINED, evidence, request_over

GATES = ("auc by contract", "comparison")
WAIVER = Waiver("churn", "local", GATES, "max@example.com", "a new tariff", "terminal", NOW, NOW + timedelta(days=7))


@pytest.fixture
def env(tmp_path: Path) -> World:
    return World.at(tmp_path)


def standing(
    env: World, gates: tuple[str, ...] = GATES, requested_by: str = "dana@example.com", days: float = 0.01
) -> Any:
    trained, held = TRAINED.model_copy(update={"commit": ""}), FIRST.model_copy(update={"failed_gates": gates})
    now = NOW + timedelta(days=days)
    return valid_waivers(env, load_model("churn").spec, trained, held, Actor(requested_by), now)


def test_the_gates_that_may_be_waived_are_those_of_model_yaml() -> None:
    gates = waivable_gates(load_model("churn").spec)
    assert gates[:10] == (
        "minimum_rows", "auc", "brier", "calibration_error", "auc by contract", "auc by senior_citizen", "comparison",
        "repeated rows", "perfect auc", "perfect accuracy",
    )  # fmt: skip
    assert gates[10:] == tuple(f"leak in {feature}" for feature in load_model("churn").spec.data.features)


def test_a_sign_of_a_leak_is_waived_for_one_feature_by_its_name(env: World) -> None:
    record_waiver(env, replace(WAIVER, gates=("leak in tenure",)))
    assert standing(env, ("leak in tenure",))
    assert standing(env, ("leak in contract",)) == ()


def test_a_waiver_of_a_feature_that_the_model_does_not_have_is_refused(env: World) -> None:
    with pytest.raises(Refusal, match="no such gate.*leak in tenures.*and .* more"):
        record_waiver(env, replace(WAIVER, gates=("leak in tenures",)))


def test_a_waiver_opens_its_gates_until_it_ends_and_is_a_signed_decision(env: World) -> None:
    assert standing(env) == ()
    link = record_waiver(env, WAIVER)
    assert (link.kind, bool(link.signature)) == ("waiver", True)
    assert standing(env) == (link.hash,)
    assert standing(env, days=7.01) == ()


CLOSED: dict[str, dict[str, Any]] = {
    "another gate": {"gates": (*GATES, "brier")},
    "what nobody may waive": {"gates": (*GATES, "")},
    "a run that the waiver's author asked for": {"requested_by": "MAX@example.com"},
}


@pytest.mark.parametrize("asked", CLOSED.values(), ids=CLOSED)
def test_a_waiver_does_not_open(env: World, asked: dict[str, Any]) -> None:
    record_waiver(env, WAIVER)
    assert standing(env, **asked) == ()


def test_a_waiver_of_someone_who_has_lost_the_role_opens_nothing(env: World) -> None:
    env.people = {"max@example.com": Person(roles=("risk",))}
    env.approval = ApprovalSettings(roles=("risk",))
    record_waiver(env, WAIVER)
    assert standing(env)
    env.people = {}
    assert standing(env) == ()


def test_a_waiver_of_an_author_of_the_code_opens_nothing(env: World) -> None:
    record_waiver(env, replace(WAIVER, waived_by=unapproved_authors("churn")[0]))
    assert standing(env) == ()
    other = record_waiver(env, WAIVER)
    assert standing(env) == (other.hash,)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a gate that is none": ({"gates": ("auc by shoe size",)}, "no such gate.*auc by contract"),
    "no gate": ({"gates": ()}, "no such gate"),
    "a leak": ({"gates": ("",)}, "no such gate"),
    "no reason": ({"reason": " "}, "needs a reason of 3 letters"),
    "no name": ({"waived_by": ""}, "needs a name"),
    "an end that is past": ({"until": NOW}, "past or too far ahead"),
    "for ever": ({"until": NOW + timedelta(days=91)}, "at most 90 days"),
}


@pytest.mark.parametrize(("changes", "says"), REFUSED.values(), ids=REFUSED)
def test_a_waiver_that_does_not_count_is_refused_and_recorded(env: World, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(Refusal, match=says):
        record_waiver(env, replace(WAIVER, **changes))
    assert [link.kind for link in env.approvals().chain_entries()] == ["refusal"]


def test_a_held_model_is_deployed_while_its_waiver_stands_and_not_after(env: World) -> None:
    waived = record_waiver(env, replace(WAIVER, at=NOW - timedelta(hours=1)))
    held = JUDGED.model_copy(update={"verdict": "hold", "failed_gates": GATES})
    shown = replace(evidence(judged=held), model="churn", waivers=(waived.hash,))
    asked = env.approvals().add_request(request_over(shown))
    submit_decision(
        env, asked.id, approved=True, decided_by="ann@example.com", reason="with the waiver", channel="t", now=NOW
    )
    assert verify_approval(env, asked, "1", interrupted_effect=None, now=NOW).waivers == (waived.hash,)
    env.approval = ApprovalSettings(approvers=("ann@example.com",))  # max may decide no more: his waiver does not count
    with pytest.raises(Refusal, match=r"no valid waiver covers it.*auc by contract, comparison"):
        verify_approval(env, asked, "1", interrupted_effect=None, now=NOW)

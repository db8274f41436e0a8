"""What is asked is everything that the decision is about, and only who may decide decides.

`DATA`, `TRAINED` and the like are what the stages of one retraining hand on; the tests of `deploy` use them too.
"""

from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks.approvals.base import ApprovalRequest, Approvals
from blocks.approvals.chain import request_digest
from blocks.common.errors import Conflict, NotFound
from blocks.common.gateway import Gateway
from blocks.common.trust import Person
from tasks.approval.requests import decide, gather, where_to_decide
from tasks.approval.rules.evidence import Evidence, canonical_json, evidence_digest, parse_evidence
from tasks.shared.records import Checked, Judged, TierData, Trained
from tasks.shared.rules.refusal import Refusal
from tests.tasks.shared.test_champion import NOW, World

DATA = TierData(
    model="price", tier="production", as_of="00000001-aaaaaaaa", data_digest="d" * 64, digest="t" * 64,
    folder=Path("tier"), train_rows=80, holdout_rows=20, holdout_digest="h" * 64,
)  # fmt: skip
CHECKED = Checked(suite="price", rows=100, passed=12, report="12 of 12")
TRAINED = Trained(
    version="2", run_id="run-2", run_url="fake://runs/run-2", version_url="fake://models/price/2",
    artifact=Path("model"), model_digest="m" * 64, parameters={"trees": "100"}, seed=7, commit="c" * 40,
    patch_digest="", seconds=1.5,
)  # fmt: skip
JUDGED = Judged(
    outcome="pass", reasons=("auc is better by 0.02",), metrics={"auc": 0.85}, champion="1",
    champion_metrics={"auc": 0.83}, golden_request='{"instances": [1]}', golden_predictions="[0.75]",
)  # fmt: skip
WAIVERS = ("a" * 64,)
FIRST = JUDGED.model_copy(update={"champion": "", "champion_metrics": {}, "reasons": ("it passes its floors",)})


def evidence(
    data: TierData = DATA,
    checked: Checked = CHECKED,
    trained: Trained = TRAINED,
    judged: Judged = JUDGED,
    because: str = "",
) -> Evidence:
    return gather("price", "local", data, checked, trained, judged, WAIVERS if judged.gates else (), because)


def request_over(shown: Evidence, **changes: Any) -> ApprovalRequest:
    """Return the request that `dana` made over this evidence an hour ago, open for another day."""
    made = {
        "id": f"price-{shown.version}", "model": shown.model, "environment": shown.environment,
        "version": shown.version, "digest": evidence_digest(shown), "evidence": canonical_json(shown),
        "requested_by": "dana@example.com", "requested_at": NOW - timedelta(hours=1),
        "expires_at": NOW + timedelta(days=1), "flow_run_id": "",
    }  # fmt: skip
    return ApprovalRequest(**{**made, **changes})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


@pytest.fixture
def approvals(world: World) -> Approvals:
    return world.approvals()


def say(world: World, request: ApprovalRequest, approved: bool = True, by: str = "max@example.com", **more: Any) -> Any:
    made = {"reason": "it is better", "channel": "terminal", "now": NOW, **more}
    return decide(world, request.id, approved=approved, by=by, **made)


def test_the_evidence_is_what_the_stages_found() -> None:
    found = evidence()
    assert (found.version, found.model_digest, found.commit) == ("2", "m" * 64, "c" * 40)
    assert (found.tier, found.as_of, found.data_digest, found.holdout_digest) == (
        "production", "00000001-aaaaaaaa", "d" * 64, "h" * 64,
    )  # fmt: skip
    assert (found.verdict, found.champion_version, dict(found.champion_metrics)) == ("pass", "1", {"auc": 0.83})
    assert (found.checks.passed, found.checks.failed) == (12, 0)
    assert parse_evidence(canonical_json(found)) == found


def test_a_first_model_has_evidence_without_a_champion() -> None:
    found = evidence(judged=FIRST)
    assert (found.champion_version, dict(found.champion_metrics)) == ("", {})
    assert len(evidence_digest(found)) == 64


CHANGES = {
    "model_digest": {"trained": TRAINED.model_copy(update={"model_digest": "x" * 64})},
    "version": {"trained": TRAINED.model_copy(update={"version": "3"})},
    "commit": {"trained": TRAINED.model_copy(update={"commit": "x" * 40})},
    "patch_digest": {"trained": TRAINED.model_copy(update={"patch_digest": "x" * 64})},
    "parameters": {"trained": TRAINED.model_copy(update={"parameters": {"trees": "101"}})},
    "seed": {"trained": TRAINED.model_copy(update={"seed": 8})},
    "tier": {"data": DATA.model_copy(update={"tier": "staging"})},
    "as_of": {"data": DATA.model_copy(update={"as_of": "00000002-bbbbbbbb"})},
    "data_digest": {"data": DATA.model_copy(update={"data_digest": "x" * 64})},
    "holdout_digest": {"data": DATA.model_copy(update={"holdout_digest": "x" * 64})},
    "checks": {"checked": CHECKED.model_copy(update={"passed": 11})},
    "metrics": {"judged": JUDGED.model_copy(update={"metrics": {"auc": 0.86}})},
    "champion_version": {"judged": JUDGED.model_copy(update={"champion": "0"})},
    "champion_metrics": {"judged": JUDGED.model_copy(update={"champion_metrics": {"auc": 0.82}})},
    "verdict": {"judged": JUDGED.model_copy(update={"outcome": "hold"})},
    "reasons": {"judged": JUDGED.model_copy(update={"reasons": ("auc is no worse",)})},
    "cost_usd": {"trained": TRAINED.model_copy(update={"cost_usd": 1.25})},
    "serving_usd_month": {"trained": TRAINED.model_copy(update={"serving_usd_month": 84.0})},
    "gates": {"judged": JUDGED.model_copy(update={"gates": ("comparison",)})},
    "because": {"because": "drift of 2026-11-25: The rows differ."},
}


@pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES)
def test_whatever_a_stage_found_otherwise_makes_another_digest(changed: dict[str, Any]) -> None:
    assert evidence_digest(evidence(**changed)) != evidence_digest(evidence())


def test_every_part_of_the_evidence_comes_from_a_stage() -> None:
    fixed = {"model", "environment", "waivers", "exhibits"}
    assert {field.name for field in fields(Evidence)} == {*CHANGES, *fixed}


def test_a_decision_is_recorded_with_who_why_and_by_which_channel(world: World, approvals: Approvals) -> None:
    request = approvals.request_approval(request_over(evidence()))
    made = say(
        world, request, by=" max@example.com ", reason=" it is better\n", channel="prefect form, name not verified"
    )
    assert made == approvals.decision(request.id)
    assert made.request_digest == request_digest(request)
    assert not made.authenticated
    assert (made.by, made.reason, made.approved) == ("max@example.com", "it is better", True)
    assert (made.channel, made.digest) == ("prefect form, name not verified", request.digest)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "by the requester": ({}, {"by": "dana@example.com"}, "who asked may not decide"),
    "by the requester in capitals": ({}, {"by": " Dana@Example.COM"}, "who asked may not decide"),
    "against it, by the requester": ({}, {"by": "dana@example.com", "approved": False}, "who asked may not decide"),
    "by nobody": ({}, {"by": " "}, "needs a name"),
    "without a reason": ({}, {"reason": "  "}, "needs a reason"),
    "by someone not on the list": ({"approvers": ("ann@example.com",)}, {}, "not among the approvers"),
    "after it expired": ({"expires_at": NOW - timedelta(seconds=1)}, {}, "has expired"),
}


@pytest.mark.parametrize(("asked", "said", "problem"), REFUSED.values(), ids=REFUSED)
def test_a_decision_that_does_not_count_is_refused_and_leaves_the_request_open(
    world: World, approvals: Approvals, asked: dict[str, Any], said: dict[str, Any], problem: str
) -> None:
    request = approvals.request_approval(request_over(evidence(), **asked))
    with pytest.raises(Refusal, match=rf"price-2.*{problem}"):
        say(world, request, **said)
    assert approvals.decision(request.id) is None
    assert approvals.open_requests() == (request,)


def test_with_two_eyes_the_requester_may_decide(world: World, approvals: Approvals) -> None:
    request = approvals.request_approval(request_over(evidence(), four_eyes=False))
    assert say(world, request, by="dana@example.com").approved


def test_the_first_decision_stays(world: World, approvals: Approvals) -> None:
    request = approvals.request_approval(request_over(evidence()))
    first = say(world, request, approved=False)
    assert say(world, request, approved=False) == first, "the same word again is the same decision"
    with pytest.raises(Conflict, match=r"rejected by max@example\.com"):
        say(world, request, approved=True)
    with pytest.raises(Conflict, match="decided already"):
        say(world, request, approved=False, by="ann@example.com")
    assert approvals.decision(request.id) == first


def test_a_request_that_nobody_made_cannot_be_decided(world: World, approvals: Approvals) -> None:
    with pytest.raises(NotFound, match=r"price-2.*none"):
        say(world, request_over(evidence()))


def test_a_decision_over_something_else_than_was_shown_is_refused_and_recorded(
    world: World, approvals: Approvals
) -> None:
    request = approvals.request_approval(request_over(evidence()))
    with pytest.raises(Conflict, match="not what was shown"):
        say(world, request, shown="0" * 64)
    (link,) = approvals.links()
    assert (link.kind, approvals.decision(request.id)) == ("refusal", None)
    assert say(world, request, shown=request.digest).approved


def test_a_role_counts_that_the_sign_in_proved_and_is_signed_with_the_decision(
    world: World, approvals: Approvals
) -> None:
    request = approvals.request_approval(request_over(evidence(), roles=("risk",)))
    with pytest.raises(Refusal, match="none of the roles"):
        say(world, request, roles=("risk",))  # nobody proved who it is, so nobody proved the role
    made = say(world, request, roles=("risk",), authenticated=True)
    assert (made.roles, approvals.decision(request.id)) == (("risk",), made)


def test_who_is_barred_decides_nothing_whatever_the_sign_in_proved(world: World, approvals: Approvals) -> None:
    request = approvals.request_approval(request_over(evidence(), roles=("risk",)))
    world.people = {"max@example.com": Person(barred=True)}
    with pytest.raises(Refusal, match="barred"):
        say(world, request, roles=("risk",), authenticated=True)


def test_the_alert_links_to_the_page_where_there_is_one(world: World) -> None:
    assert where_to_decide(world, "price-2") == 'make approve REQUEST=price-2 BY=you REASON="why"'
    world.gateway = Gateway(address="https://ratchet.example.com")
    assert where_to_decide(world, "price-2") == "https://ratchet.example.com/approvals/price-2"

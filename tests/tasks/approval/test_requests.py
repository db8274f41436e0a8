"""Approval requests: the evidence they carry, and who may decide.

`DATA`, `TRAINED` and similar names are the results that the stages of one retraining pass on; the tests of `deploy`
use them, too.
"""

from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks.approvals.base import Approvals
from blocks.approvals.chain import request_digest
from blocks.common.errors import Conflict, NotFound
from blocks.common.gateway_settings import GatewaySettings
from blocks.records.people import Person
from tasks.approval.requests import approval_link, submit_request
from tasks.approval.rules.evidence import Evidence, canonical_json, evidence_digest, parse_evidence
from tasks.evaluation.rules.spending import SpentLevel
from tasks.shared.models import TeamModel
from tasks.shared.rules.refusal import Refusal
from tests.fakes.environment import NOW, SPEC, World
from tests.fixtures.approval_requests import CHECKED, DATA, FIRST, JUDGED, TRAINED, evidence, request_over, say


@pytest.fixture
def env(tmp_path: Path) -> World:
    return World.at(tmp_path)


@pytest.fixture
def approvals(env: World) -> Approvals:
    return env.approvals()


def test_the_evidence_is_what_the_stages_found() -> None:
    found = evidence()
    assert (found.version, found.model_digest, found.commit) == ("2", "m" * 64, "c" * 40)
    assert (found.tier, found.as_of, found.data_digest, found.holdout_digest) == (
        "full", "00000001-aaaaaaaa", "d" * 64, "h" * 64,
    )  # fmt: skip
    assert (found.verdict, found.champion_version, dict(found.champion_metrics)) == ("pass", "1", {"auc": 0.83})
    assert (found.expectations.passed, found.expectations.failed) == (12, 0)
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
    "expectations": {"checked": CHECKED.model_copy(update={"expectations_passed": 11})},
    "metrics": {"judged": JUDGED.model_copy(update={"metrics": {"auc": 0.86}})},
    "champion_version": {"judged": JUDGED.model_copy(update={"champion_version": "0"})},
    "champion_metrics": {"judged": JUDGED.model_copy(update={"champion_metrics": {"auc": 0.82}})},
    "verdict": {"judged": JUDGED.model_copy(update={"verdict": "hold"})},
    "reasons": {"judged": JUDGED.model_copy(update={"reasons": ("auc is no worse",)})},
    "cost_usd": {"trained": TRAINED.model_copy(update={"cost_usd": 1.25})},
    "serving_usd_month": {"trained": TRAINED.model_copy(update={"serving_usd_month": 84.0})},
    "failed_gates": {"judged": JUDGED.model_copy(update={"failed_gates": ("comparison",)})},
    "spent_level": {"judged": JUDGED.model_copy(update={"spent_level": SpentLevel(1, "1", 0.013, 0.013, 0.05)})},
    "holdout_rule": {"data": DATA.model_copy(update={"holdout_rule": "0.3"})},
    "cut_off": {"data": DATA.model_copy(update={"cut_off": "2026-03-02T00:00:00+00:00"})},
    "trained_until": {"data": DATA.model_copy(update={"trained_until": "2026-03-01T00:00:00+00:00"})},
    "compared_since": {"judged": JUDGED.model_copy(update={"compared_since": "2026-03-01T00:00:00+00:00"})},
    "trigger_reason": {"because": "drift of 2026-11-25: The rows differ."},
}


@pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES)
def test_whatever_a_stage_found_otherwise_makes_another_digest(changed: dict[str, Any]) -> None:
    assert evidence_digest(evidence(**changed)) != evidence_digest(evidence())


def test_every_part_of_the_evidence_comes_from_a_stage() -> None:
    fixed = {"model", "environment", "waivers", "attachments_digest"}
    assert {field.name for field in fields(Evidence)} == {*CHANGES, *fixed}


def test_a_decision_is_recorded_with_who_why_and_by_which_channel(env: World, approvals: Approvals) -> None:
    request = approvals.add_request(request_over(evidence()))
    made = say(
        env, request, by=" max@example.com ", reason=" it is better\n", channel="prefect form, name not verified"
    )
    assert made == approvals.final_decision(request.id)
    assert made.request_digest == request_digest(request)
    assert not made.authenticated
    assert (made.by, made.reason, made.approved) == ("max@example.com", "it is better", True)
    assert (made.channel, made.digest) == ("prefect form, name not verified", request.digest)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "by the requester": ({}, {"by": "dana@example.com"}, "the requester may not decide"),
    "by the requester in capitals": ({}, {"by": " Dana@Example.COM"}, "the requester may not decide"),
    "against it, by the requester": ({}, {"by": "dana@example.com", "approved": False}, "the requester may not decide"),
    "by nobody": ({}, {"by": " "}, "needs a name"),
    "without a reason": ({}, {"reason": "  "}, "needs a reason"),
    "by someone not on the list": ({"approvers": ("ann@example.com",)}, {}, "not among the approvers"),
    "after it expired": ({"expires_at": NOW - timedelta(seconds=1)}, {}, "has expired"),
}


@pytest.mark.parametrize(("asked", "said", "problem"), REFUSED.values(), ids=REFUSED)
def test_a_decision_that_does_not_count_is_refused_and_leaves_the_request_open(
    env: World, approvals: Approvals, asked: dict[str, Any], said: dict[str, Any], problem: str
) -> None:
    request = approvals.add_request(request_over(evidence(), **asked))
    with pytest.raises(Refusal, match=rf"price-2.*{problem}"):
        say(env, request, **said)
    assert approvals.final_decision(request.id) is None
    assert approvals.open_requests() == (request,)


def test_with_two_eyes_the_requester_may_decide(env: World, approvals: Approvals) -> None:
    request = approvals.add_request(request_over(evidence(), four_eyes=False))
    assert say(env, request, by="dana@example.com").approved


def test_the_first_decision_stays(env: World, approvals: Approvals) -> None:
    request = approvals.add_request(request_over(evidence()))
    first = say(env, request, approved=False)
    assert say(env, request, approved=False) == first, "the same word again is the same decision"
    with pytest.raises(Conflict, match=r"rejected by max@example\.com"):
        say(env, request, approved=True)
    with pytest.raises(Conflict, match="decided already"):
        say(env, request, approved=False, by="ann@example.com")
    assert approvals.final_decision(request.id) == first


def test_a_request_that_nobody_made_cannot_be_decided(env: World, approvals: Approvals) -> None:
    with pytest.raises(NotFound, match=r"price-2.*none"):
        say(env, request_over(evidence()))


def test_a_decision_over_something_else_than_was_shown_is_refused_and_recorded(
    env: World, approvals: Approvals
) -> None:
    request = approvals.add_request(request_over(evidence()))
    with pytest.raises(Conflict, match="has changed since it was shown"):
        say(env, request, shown_digest="0" * 64)
    (link,) = approvals.chain_entries()
    assert (link.kind, approvals.final_decision(request.id)) == ("refusal", None)
    assert say(env, request, shown_digest=request.digest).approved


def test_a_role_counts_that_the_sign_in_proved_and_is_signed_with_the_decision(
    env: World, approvals: Approvals
) -> None:
    request = approvals.add_request(request_over(evidence(), roles=("risk",)))
    with pytest.raises(Refusal, match="none of the roles"):
        say(env, request, roles=("risk",))  # nobody has proved their identity, so nobody has proved the role
    made = say(env, request, roles=("risk",), authenticated=True)
    assert (made.roles, approvals.final_decision(request.id)) == (("risk",), made)


def test_who_is_revoked_decides_nothing_whatever_the_sign_in_proved(env: World, approvals: Approvals) -> None:
    request = approvals.add_request(request_over(evidence(), roles=("risk",)))
    env.people = {"max@example.com": Person(revoked=True)}
    with pytest.raises(Refusal, match="right of this person to decide is revoked"):
        say(env, request, roles=("risk",), authenticated=True)


def test_the_alert_links_to_the_page_where_there_is_one(env: World) -> None:
    assert approval_link(env, "price-2") == 'make approve REQUEST=price-2 BY=you REASON="why"'
    env.gateway = GatewaySettings(address="https://ratchet.example.com")
    assert approval_link(env, "price-2") == "https://ratchet.example.com/approvals/price-2"


def test_a_request_is_over_its_evidence_and_a_retry_finds_it(tmp_path: Path) -> None:
    env, brought, shown = World.at(tmp_path), TeamModel(Path("models/price"), SPEC), evidence(judged=FIRST)
    made = submit_request(env, brought, shown, "dana@example.com", "run-1", NOW)
    assert (made.model, made.environment, made.version) == ("price", "local", "2")
    assert (made.digest, made.evidence) == (evidence_digest(shown), canonical_json(shown))
    assert made.expires_at - made.requested_at == timedelta(days=SPEC.approval.expires_days)
    assert submit_request(env, brought, shown, "dana@example.com", "run-1", NOW + timedelta(hours=1)) == made
    assert env.approvals().get_request(made.id) == made

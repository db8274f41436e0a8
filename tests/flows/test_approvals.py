"""What an approval is worth: only this person's, only over this evidence, only in time, only once."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.flow_runs import resume_flow_run

from blocks.environment import open_environment
from deployments.runs import WAITING, ended, follow
from deployments.stack import Stack
from tasks.approve import decide
from tasks.logic.refusal import Refusal
from tests.support import SMALL, customers, land, ledger, outcome, released, request_of, retry, run, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(900)]


def test_who_may_not_decide_is_refused_and_a_rejection_deploys_nothing(stack: Stack, tmp_path: Path) -> None:
    land("beta", customers()[:2000], tmp_path)
    waiting = run("retrain/retrain", model="beta", parameters=SMALL, requested_by="dana@example.com")
    assert outcome(waiting) == "Suspended"
    request = request_of(waiting)
    with pytest.raises(Refusal):
        decide(ledger(), request.id, approved=True, by="Dana@Example.com ", reason="I made it", channel="terminal",
               now=datetime.now(UTC))  # fmt: skip

    # the same through the form of the Prefect UI: it does not count, and the run waits on
    resume_flow_run(waiting.id, run_input={"approve": True, "reviewer": "dana@example.com", "reason": "I made it"})
    follow(waiting.id, until=lambda seen: bool(seen.state and seen.state.name == "Running"), seconds=60)
    again = follow(waiting.id, seconds=120)
    assert outcome(again) == "Suspended"
    assert ledger().decision(request.id) is None

    # a run that is pushed past its pause finds no approval, and waits again
    retry(waiting.id)
    follow(waiting.id, until=lambda seen: bool(seen.state and seen.state.name == "Running"), seconds=60)
    again = follow(waiting.id, seconds=120)
    assert outcome(again) in ("Suspended", f"Failed: {again.state.message if again.state else ''}")
    assert not released("beta")


def test_a_rejection_through_the_form_leaves_nothing_deployed(stack: Stack, tmp_path: Path) -> None:
    land("gamma", customers()[:2000], tmp_path)
    waiting = run("retrain/retrain", model="gamma", parameters=SMALL, requested_by="dana@example.com")
    assert outcome(waiting) == WAITING
    request = request_of(waiting)
    resume_flow_run(waiting.id, run_input={"approve": False, "reviewer": "max@example.com", "reason": "not now"})
    done = follow(waiting.id, until=ended, seconds=120)
    assert outcome(done) == "Rejected"
    decision = ledger().decision(request.id)
    assert decision is not None
    assert (decision.by, decision.approved) == ("max@example.com", False)
    assert "not verified" in decision.channel
    assert not released("gamma")

    # an approval of other evidence does not carry over
    from tasks.deploy import still_approved

    other = replace(request, id="forged", evidence=request.evidence.replace('"seed":7', '"seed":8'))
    assert json.loads(other.evidence)["seed"] == 8
    with pytest.raises(Refusal, match="digest|evidence"):
        still_approved(ledger(), replace(other, id=request.id), "", resumed=False)
    late = replace(request, requested_at=request.requested_at - timedelta(days=8),
                   expires_at=request.expires_at - timedelta(days=8))  # fmt: skip
    with pytest.raises(Refusal):
        still_approved(ledger(), late, "", resumed=False)
    assert wait_for(lambda: open_environment("local").endpoint().serving("gamma") is None, 1)

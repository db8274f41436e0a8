"""Approvals of a run: valid only by an entitled person, over this evidence, in time, and once."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas import FlowRun
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.flow_runs import resume_flow_run

from blocks.environment import open_environment
from blocks.records.approvals import ApprovalRequest
from deployments.flow_runs import SUSPENDED, is_ended, start_run, wait_for_run
from flows.approval import await_decision
from local.stack import Stack, use_running_stack
from local.supervisor import down
from tasks.approval.requests import submit_decision
from tasks.shared.records import PendingApproval
from tasks.shared.rules.refusal import Refusal
from tests.checkout import start_stack
from tests.fixtures.support import (
    SMALL,
    approvals,
    approve,
    customers,
    deployments_of,
    ingest_frame,
    outcome,
    request_of,
    retry,
    run,
)
from tests.waiting import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(900)]


def test_who_may_not_decide_is_refused_and_a_rejection_deploys_nothing(stack: Stack, tmp_path: Path) -> None:
    ingest_frame("beta", customers()[:2000], tmp_path)
    waiting = run("retrain/retrain", model="beta", parameters=SMALL, requested_by="dana@example.com")
    assert outcome(waiting) == "Suspended"
    request = request_of(waiting)
    with pytest.raises(Refusal):
        submit_decision(open_environment("local"), request.id, approved=True, decided_by="Dana@Example.com ", reason="I made it", channel="terminal",
               now=datetime.now(UTC))  # fmt: skip

    # the same through the form of the Prefect UI: it does not count, and the run still waits
    resume_flow_run(waiting.id, run_input={"approve": True, "reviewer": "dana@example.com", "reason": "I made it"})
    again = waits_anew(waiting)
    assert approvals().final_decision(request.id) is None

    # a run that is resumed without a decision finds no approval, and waits again
    retry(waiting.id)
    waits_anew(again)

    # a rejection through the form counts, and is recorded as made there
    resume_flow_run(waiting.id, run_input={"approve": False, "reviewer": "max@example.com", "reason": "not now"})
    assert outcome(wait_for_run(waiting.id, until=is_ended, seconds=120)) == "rejected"
    decision = approvals().final_decision(request.id)
    assert decision is not None
    assert (decision.by, decision.approved) == ("max@example.com", False)
    assert "not verified" in decision.channel
    assert not deployments_of("beta")
    assert wait_for(lambda: open_environment("local").endpoint().live_version("beta") is None, 1)


def waits_anew(before: FlowRun) -> FlowRun:
    """Return the run once it waits again after a resume."""
    return wait_for_run(before.id, seconds=120, until=lambda now: bool(now.state and now.state.name == SUSPENDED
                                                                 and now.state_id != before.state_id))  # fmt: skip


def test_a_request_that_waits_survives_the_restart_of_everything(
    stack: Stack, team_checkout: Path, tmp_path: Path
) -> None:
    ingest_frame("delta", customers()[:2000], tmp_path)
    waiting = run("retrain/retrain", model="delta", parameters=SMALL, requested_by="dana@example.com")
    assert outcome(waiting) == SUSPENDED
    down(stack.state_folder)
    start_stack(team_checkout, stack.state_folder)
    use_running_stack(stack.state_folder)
    # its form is lost as well, as after a kill just after the pause: the decision resumes it all the same
    keys = waiting.state.state_details.run_input_keyset if waiting.state else None
    with get_client(sync_client=True) as client:
        client.delete_flow_run_input(waiting.id, keys["schema"] if keys else "")
    assert outcome(approve(waiting)) == "deployed"
    assert open_environment("local").endpoint().live_version("delta") is not None


def test_two_retrainings_of_one_model_run_one_after_the_other(stack: Stack, tmp_path: Path) -> None:
    ingest_frame("epsilon", customers()[:2000], tmp_path)
    asked = {"model": "epsilon", "parameters": SMALL, "requested_by": "dana@example.com"}
    both = [start_run("retrain/retrain", asked), start_run("retrain/retrain", asked)]
    assert [outcome(wait_for_run(run_id, seconds=240)) for run_id in both] == [SUSPENDED, SUSPENDED]
    spans = sorted(span_of_tasks(run_id) for run_id in both)
    assert spans[0][1] <= spans[1][0]

    # both request approval; once the first is deployed, the second was compared with an outdated champion
    first, second = (wait_for_run(run_id) for run_id in both)
    assert outcome(approve(first)) == "deployed"
    late = approve(second)
    assert "champion" in outcome(late)
    assert [line.status for line in deployments_of("epsilon")] == ["serving"]


def span_of_tasks(run_id: UUID) -> tuple[datetime, datetime]:
    """Return when the first task of a run started, and when the last one ended."""
    only = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    with get_client(sync_client=True) as client:
        tasks = client.read_task_runs(flow_run_filter=only)
    return min(t.start_time for t in tasks if t.start_time), max(t.end_time for t in tasks if t.end_time)


def test_a_request_that_lapsed_is_a_hold_without_a_pause(stack: Stack) -> None:
    now = datetime.now(UTC)
    lapsed = ApprovalRequest("zeta-1-0", "zeta", "local", "1", "0" * 64, "{}", "dana@example.com",
                             now - timedelta(days=8), now - timedelta(days=1), "")  # fmt: skip
    approvals().add_request(lapsed)
    asked = PendingApproval(
        request_id=lapsed.id, digest=lapsed.digest, expires_at=lapsed.expires_at, request_markdown=""
    )
    assert await_decision(asked, "local") is None
    with pytest.raises(Refusal, match="lapsed|expired"):
        submit_decision(
            open_environment("local"),
            lapsed.id,
            approved=True,
            decided_by="max@example.com",
            reason="too late",
            channel="terminal",
            now=now,
        )

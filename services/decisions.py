"""Record a decision in the ledger, then resume the suspended flow run."""

import time
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectHTTPStatusError
from prefect.flow_runs import resume_flow_run
from prefect.states import Scheduled

from blocks.environment import Environment
from blocks.records.approvals import ApprovalRequest, Decision
from tasks.approval.requests import submit_decision

FORM_TIMEOUT_SECONDS = 10.0
"""Time that a suspended run gets to save its form. After it, the run is treated as killed before it could."""


def resume_run(
    run_id: UUID, decision: Decision, *, form_seconds: float = FORM_TIMEOUT_SECONDS, poll_seconds: float = 0.5
) -> None:
    """Resume a suspended run, with its form filled in from the decision.

    Prefect suspends a run first and saves its form afterwards. A run that was killed in between has no form, and
    Prefect refuses to resume it. It is scheduled again without the form, and reads the decision from the ledger.

    Raises:
        NotPausedError, FlowPauseTimeout, ObjectNotFound: the run is not suspended (any more).
        RuntimeError, httpx.HTTPError: Prefect refuses, or does not respond.
    """
    deadline = time.monotonic() + form_seconds
    with get_client(sync_client=True) as client:
        while not has_form(client, run_id):
            if time.monotonic() > deadline:
                resuming: State = Scheduled(
                    name="Resuming", message="Decided; the run had no form.", scheduled_time=datetime.now(UTC)
                )
                client.set_flow_run_state(run_id, resuming, force=True)
                return
            time.sleep(poll_seconds)
    resume_flow_run(
        run_id, run_input={"approve": decision.approved, "reviewer": decision.by, "reason": decision.reason}
    )


def has_form(client: SyncPrefectClient, run_id: UUID) -> bool:
    """Return whether the form of a suspended run is saved; True for a run that does not wait for a form.

    Raises:
        ObjectNotFound, httpx.HTTPError: there is no such run, or Prefect does not respond.
    """
    state = client.read_flow_run(run_id).state
    if state is None or not state.is_paused() or not state.state_details.run_input_keyset:
        return True
    try:
        client.read_flow_run_input(run_id, state.state_details.run_input_keyset["schema"])
    except PrefectHTTPStatusError as problem:
        if problem.response.status_code == 404:
            return False
        raise
    return True


CHANNEL = "terminal"


def record_decision(
    env: Environment,
    request: ApprovalRequest,
    *,
    approved: bool,
    by: str,
    reason: str,
    now: datetime | None = None,
) -> Decision:
    """Record the decision, and resume the flow run if no further approval is needed.

    Args:
        env, request, approved, by, reason: the decision, and where it is recorded.
        now: the time of the decision; by default the time of the call.

    Raises:
        Refusal, PortError: the decision does not count; nothing was recorded.
    """
    at = now or datetime.now(UTC)
    decision = submit_decision(
        env, request.id, approved=approved, decided_by=by, reason=reason, channel=CHANNEL, now=at
    )
    if env.approvals().final_decision(request.id) is None:
        print(f"{request.approvals} people must approve; the run waits for the others.")
        return decision
    try:
        resume_run(UUID(request.flow_run_id), decision)
    except Exception as error:  # whatever Prefect responds, the decision is stored in the ledger
        print(f"The decision is recorded, but flow run {request.flow_run_id} could not be resumed: {error}")
        print("Resume it on the Prefect UI; it will find the decision.")
    return decision

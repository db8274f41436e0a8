"""Record a decision and wake the flow run that waits for it. The decision is safe in the ledger before that."""

import time
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectHTTPStatusError
from prefect.flow_runs import resume_flow_run
from prefect.states import Scheduled

from blocks.approvals.base import ApprovalRequest, Decision
from blocks.environment import Environment
from tasks.approval.requests import submit_decision

FORM_TIMEOUT_SECONDS = 10.0
"""How long a run that is suspended may take to save its form, before it is taken to have been killed in between."""


def resume_run(
    run_id: UUID, decision: Decision, *, form_seconds: float = FORM_TIMEOUT_SECONDS, poll_seconds: float = 0.5
) -> None:
    """Resume a run that waits, with the form filled in as it was decided.

    Prefect suspends a run first and saves its form afterwards. A run that was killed in between waits with no form,
    and Prefect refuses to resume it; it is started again past the form then, and finds the decision in the ledger.

    Raises:
        NotPausedError, FlowPauseTimeout, ObjectNotFound: it does not wait (any more).
        RuntimeError, httpx.HTTPError: Prefect refuses, or does not answer.
    """
    deadline = time.monotonic() + form_seconds
    with get_client(sync_client=True) as client:
        while not has_form(client, run_id):
            if time.monotonic() > deadline:
                again: State = Scheduled(
                    name="Resuming", message="It is decided, and had no form.", scheduled_time=datetime.now(UTC)
                )
                client.set_flow_run_state(run_id, again, force=True)
                return
            time.sleep(poll_seconds)
    resume_flow_run(
        run_id, run_input={"approve": decision.approved, "reviewer": decision.by, "reason": decision.reason}
    )


def has_form(client: SyncPrefectClient, run_id: UUID) -> bool:
    """Return whether the form that a suspended run waits for is saved; true of one that does not wait for a form.

    Raises:
        ObjectNotFound, httpx.HTTPError: there is no such run, or Prefect does not answer.
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
    """Record the decision, then wake the flow run that waits for it, unless it takes more approvals yet.

    Args:
        env, request, approved, by, reason: the decision, and where it is recorded.
        now: when it is made; by default the time of the call.

    Raises:
        Refusal, PortError: the decision does not count; nothing was recorded.
    """
    at = now or datetime.now(UTC)
    made = submit_decision(env, request.id, approved=approved, decided_by=by, reason=reason, channel=CHANNEL, now=at)
    if env.approvals().decision(request.id) is None:
        print(f"{request.approvals} people must approve; the run waits for the others.")
        return made
    try:
        resume_run(UUID(request.flow_run_id), made)
    except Exception as error:  # whatever Prefect answers, the decision is safe in the ledger
        print(f"The decision is recorded, but flow run {request.flow_run_id} could not be woken: {error}")
        print("Resume it on the Prefect UI; it will find the decision.")
    return made

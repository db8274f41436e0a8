"""Record a decision in the ledger, then resume the suspended flow run.

The gateway resumes runs in the background (`RunResumer`). Decisions are in the ledger first, so an outage of the
gateway or of Prefect loses nothing.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Event
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import FlowPauseTimeout, NotPausedError, ObjectNotFound, PrefectHTTPStatusError
from prefect.flow_runs import resume_flow_run
from prefect.states import Scheduled

from blocks.approvals.base import Approvals
from blocks.approvals.chain import decisions_of
from blocks.common.errors import PortError, Unavailable
from blocks.environment import Environment
from blocks.records.approvals import ApprovalRequest, Decision
from runtime.foreign_text import print_text
from tasks.approval.requests import submit_decision

_log = logging.getLogger("ratchet.approvals_ui")

CHANNEL = "terminal"
"""Where decisions of the command line and of the demo are made."""

FORM_TIMEOUT_SECONDS = 10.0
"""Time that a suspended run gets to save its form. After it, the run is treated as killed before it could."""

MAX_DECISION_AGE = timedelta(days=30)
RETRY_SECONDS, POLL_SECONDS = 4.0, 60.0
MAX_FAILURES = 3
"""After this many failures in one pass Prefect is treated as unavailable, and the pass ends."""


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

    Raises:
        Refusal, PortError: the decision does not count; nothing was recorded.
    """
    decision = submit_decision(
        env, request.id, approved=approved, decided_by=by, reason=reason, channel=CHANNEL, now=now or datetime.now(UTC)
    )
    if env.approvals().final_decision(request.id) is None:
        print_text(f"{request.approvals} people must approve; the run waits for the others.")
        return decision
    try:
        resume_run(UUID(request.flow_run_id), decision)
    except Exception as error:  # whatever Prefect responds, the decision is stored in the ledger
        print_text(f"The decision is recorded, but flow run {request.flow_run_id} could not be resumed: {error}")
        print_text("Resume it on the Prefect UI; it will find the decision.")
    return decision


def resume_suspended(run_id: str, decision: Decision) -> bool:
    """Resume a suspended run, which reads the decision from the ledger; return whether nothing more is to be done.

    Raises:
        Unavailable: Prefect does not respond.
    """
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(run_id)).state
        if state is None or not state.is_paused():
            return state is not None and state.is_final()
        resume_run(UUID(run_id), decision)
    except NotPausedError:  # it was resumed in the meantime
        return False
    except (ObjectNotFound, FlowPauseTimeout, ValueError) as cause:
        _log.warning("flow run %s cannot be resumed: %s", run_id, type(cause).__name__)
        return True
    except PrefectHTTPStatusError as cause:
        if (status := cause.response.status_code) >= 500 or status in {401, 403, 429}:
            raise Unavailable(f"Prefect responds with status {status}") from cause
        _log.warning("flow run %s cannot be resumed: Prefect responds with status %d", run_id, status)
        return True
    except RuntimeError as cause:  # the message of Prefect says why it does not resume the run
        raise Unavailable(f"flow run {run_id} was not resumed: {cause}") from cause
    except httpx.HTTPError as cause:
        raise Unavailable(f"Prefect does not respond: {type(cause).__name__}") from cause
    return False  # check it once more: a run that failed to start is resumed again


class RunResumer:
    """Resumes runs, one after the other."""

    def __init__(
        self,
        approvals: Callable[[], Approvals],
        resume: Callable[[str, Decision], bool],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._approvals, self._resume, self._clock = approvals, resume, clock
        self._resumed: set[str] = set()

    def run(self, stop: Event, wake: Event) -> None:
        """Work until `stop` is set; `wake` ends an idle wait early. No error ends the loop."""
        failed = 0
        while not stop.is_set():
            wake.clear()
            try:
                left, failed = self.step(self._clock()), 0
            except PortError as cause:
                _log.warning("runs could not be resumed: %s", cause)
                left, failed = 1, failed + 1
            except Exception:
                _log.exception("internal error while resuming runs; continuing")
                left, failed = 1, failed + 1
            wake.wait(min(RETRY_SECONDS * 2**failed, POLL_SECONDS) if left else POLL_SECONDS)

    def step(self, now: datetime) -> int:
        """Resume the runs of recent decisions, and return how many runs must be checked again.

        Raises:
            Unavailable: Prefect is unavailable, or some runs could not be resumed; the others were.
        """
        approvals, to_check_again, failures = self._approvals(), 0, list[Unavailable]()
        recent = [each for each in decisions_of(approvals.chain_entries()) if each.at > now - MAX_DECISION_AGE]
        for name in dict.fromkeys(each.request_id for each in recent if each.request_id not in self._resumed):
            end = approvals.final_decision(name)
            if end is None:
                continue  # more approvals are needed
            run_id = approvals.get_request(name).flow_run_id
            try:
                if not run_id or self._resume(run_id, end):
                    self._resumed.add(name)
                else:
                    to_check_again += 1
            except Unavailable as cause:
                failures.append(cause)
                if len(failures) == MAX_FAILURES:
                    break
        if failures:
            raise failures[0]
        return to_check_again

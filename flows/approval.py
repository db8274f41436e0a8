"""The only place that pauses: the flow run is suspended until a person has decided, or the request expired.

A resumed run is a wake-up call and no permission: what counts is the ledger's row, which the deploy task
checks again by itself.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from prefect import get_run_logger
from prefect.exceptions import Pause
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field, ValidationError

from blocks.approvals.base import Decision
from blocks.common.errors import TerminalError
from blocks.environment import Environment, open_environment
from tasks.approval.requests import submit_decision
from tasks.shared.records import PendingApproval
from tasks.shared.rules.refusal import Refusal

FORM_CHANNEL = "prefect form, name not verified"


class ApprovalForm(RunInput):
    """The form of the "Resume" dialog on the Prefect UI."""

    approve: bool = Field(description="Put this version into production? No keeps the champion serving.")
    reviewer: str = Field(min_length=2, description="Your name or e-mail address; not that of the requester.")
    reason: str = Field(min_length=3, description="Why: it is recorded with your name in the ledger.")


def await_decision(pending_approval: PendingApproval, environment: str) -> Decision | None:
    """Return what was decided over the request, or None when it expired undecided.

    Suspends the flow run until then: its process ends, and restarts of server and worker do no harm. A
    decision that the rules refuse (the requester's own, say) leaves the request open, and it waits on.
    """
    env, attempt = open_environment(environment), 0
    approvals = env.approvals()
    while True:
        decision = approvals.decision(pending_approval.request_id)
        if decision is not None:
            return decision
        seconds_left = (pending_approval.expires_at - datetime.now(UTC)).total_seconds()
        if seconds_left <= 0:
            return None
        try:
            with _sigterm_ignored_until_suspended():
                form = suspend_flow_run(
                    wait_for_input=ApprovalForm.with_initial_data(description=pending_approval.request_markdown),
                    timeout=max(1, int(seconds_left)),
                    key=f"approval-{pending_approval.request_id}-{attempt}",
                )
        except ValidationError:  # started again past the form, as by a retry of a run killed here: wait anew
            attempt += 1
            continue
        _record_form_decision(env, pending_approval, form)
        attempt += 1


@contextmanager
def _sigterm_ignored_until_suspended() -> Iterator[None]:
    """Ignore SIGTERM in the block, and after it when the run waits from there on.

    The server knows that the run waits before this process does: were it ended in between, as by a stack that is
    stopped, a run that waits would be reported crashed, and no decision could wake it.
    """
    try:
        previous_handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except ValueError:  # not the main thread, as in a test
        yield
        return
    suspended = False
    try:
        yield
    except Pause:
        suspended = True
        raise
    finally:
        if not suspended:
            signal.signal(signal.SIGTERM, previous_handler)


def _record_form_decision(env: Environment, pending_approval: PendingApproval, form: ApprovalForm) -> None:
    """Record the form's decision, unless one came by another way while the run slept.

    Nobody has proved who filled in the form, and the record says so. Where a policy asks for proof, or where only
    another machine has the key that signs decisions, it does not count.
    """
    if env.approvals().decision(pending_approval.request_id) is not None:
        return
    try:
        submit_decision(
            env,
            pending_approval.request_id,
            approved=form.approve,
            decided_by=form.reviewer,
            reason=form.reason,
            channel=FORM_CHANNEL,
            now=datetime.now(UTC),
        )
    except (Refusal, TerminalError) as refused:
        get_run_logger().warning("this decision does not count: %s", refused)

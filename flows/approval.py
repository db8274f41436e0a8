"""Suspend the flow run until a person has decided on a request, or the request has expired.

Only this module suspends runs. Resuming a run grants nothing: the decision in the ledger counts, and the deploy task
verifies it again.
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

from blocks.common.errors import TerminalError
from blocks.environment import Environment, open_environment
from blocks.records.approvals import Decision
from tasks.approval.requests import submit_decision
from tasks.shared.records import PendingApproval
from tasks.shared.rules.refusal import Refusal

FORM_CHANNEL = "prefect form, name not verified"


class ApprovalForm(RunInput):
    """The form of the "Resume" dialog on the Prefect UI."""

    approve: bool = Field(description="Deploy this version? If you say no, the deployed version stays.")
    reviewer: str = Field(min_length=2, description="Your name or e-mail address. The requester may not decide.")
    reason: str = Field(min_length=3, description="Your reason. The ledger records it with your name.")


def await_decision(pending_approval: PendingApproval, environment: str) -> Decision | None:
    """Return the decision on the request, or None when the request expired without one.

    Until then the flow run is suspended: its process ends, and restarts of server and worker do no harm. A decision
    that the rules refuse (for example, the requester's own) leaves the request open, and the run keeps waiting.
    """
    env, attempt = open_environment(environment), 0
    approvals = env.approvals()
    while True:
        decision = approvals.final_decision(pending_approval.request_id)
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
        except ValidationError:  # resumed without form input (a retry of a killed run): suspend again
            attempt += 1
            continue
        _record_form_decision(env, pending_approval, form)
        attempt += 1


@contextmanager
def _sigterm_ignored_until_suspended() -> Iterator[None]:
    """Ignore SIGTERM inside the block, and afterwards if the run was suspended in it.

    The server records the suspension before this process knows it. If the process were terminated in between, the
    suspended run would be reported as crashed, and no decision could resume it.
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
    """Record the decision from the form, unless another channel recorded one while the run was suspended.

    The form does not authenticate its user, and the record says so. The decision does not count when the policy
    requires authentication, or when only another machine has the key that signs decisions.
    """
    if env.approvals().final_decision(pending_approval.request_id) is not None:
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

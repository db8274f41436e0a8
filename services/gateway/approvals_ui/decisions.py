"""Record the decision of a signed-in user on the evidence shown to them, then resume the flow run."""

from contextlib import suppress

from blocks.common.errors import Conflict, Corrupt, NotFound, PortError
from blocks.environment import Environment
from blocks.records.approvals import ApprovalRequest, Decision
from services.gateway.approvals_ui.users import ApprovalsContext, SignedInUser
from services.gateway.approvals_ui.web import RequestError
from tasks.approval.requests import submit_decision
from tasks.approval.rules.approval import check_decider
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import current_approval_policy, environment_people

MAX_REASON_LENGTH = 2_000
VIEW_ONLY = "Your roles let you view requests, but not decide."
_REASON_PLACEHOLDER = "(reason not given yet)"


def find_request(env: Environment, name: str) -> ApprovalRequest:
    """Return a request of this environment.

    Raises:
        RequestError: there is none with that id, or the ledger is unavailable.
        Corrupt: the record was changed.
    """
    try:
        request = env.approvals().get_request(name)
    except NotFound:
        request = None
    except Corrupt:
        raise  # shown by the caller as what it is
    except PortError as cause:
        raise RequestError(503, "The ledger is unavailable at the moment. Try again.") from cause
    if request is None or request.environment != env.name:
        raise RequestError(404, "There is no such request.")
    return request


def record_decision(
    context: ApprovalsContext,
    user: SignedInUser,
    name: str,
    *,
    approved: bool,
    reason: str,
    shown_digest: str,
    channel: str,
) -> Decision:
    """Record the user's decision.

    `name` is the id of the request, `shown_digest` the digest of the evidence that was shown to the user.

    Raises:
        RequestError: the decision does not count; an attempt that the rules refused is in the ledger.
    """
    env = context.current_environment()
    with suppress(Corrupt):  # the attempt is recorded below
        find_request(env, name)
    if user.permission != "decide":
        raise RequestError(403, VIEW_ONLY)
    if len(reason) > MAX_REASON_LENGTH:
        raise RequestError(422, f"The reason is longer than {MAX_REASON_LENGTH:,} characters.")
    try:
        decision = submit_decision(
            env,
            name,
            approved=approved,
            decided_by=user.name,
            reason=reason,
            channel=f"{channel}, {user.sign_in_method}",
            now=context.clock(),
            authenticated=True,
            roles=user.roles,
            shown_digest=shown_digest,
        )
    except (Refusal, PortError) as cause:
        raise _to_request_error(cause) from cause
    context.on_decision()
    return decision


def cannot_decide_reason(context: ApprovalsContext, user: SignedInUser, request: ApprovalRequest) -> str:
    """Return why the user may not decide the request, "" when they may. Nothing is recorded."""
    if user.permission != "decide":
        return VIEW_ONLY
    env = context.current_environment()
    try:
        check_decider(
            request, user.name, _REASON_PLACEHOLDER, context.clock(), authenticated=True, proved_roles=user.roles,
            people=environment_people(env), policy=current_approval_policy(env, request.model),
        )  # fmt: skip
    except Refusal as refusal:
        return f"{refusal.problem[:1].upper()}{refusal.problem[1:]}. {refusal.remedy}".strip()
    return ""


def _to_request_error(cause: Exception) -> RequestError:
    if isinstance(cause, Refusal):
        return RequestError(403, str(cause))
    if isinstance(cause, NotFound):
        return RequestError(404, "There is no such request.")
    if isinstance(cause, Conflict):
        return RequestError(409, str(cause))
    if isinstance(cause, Corrupt):
        return RequestError(503, f"The record of decisions is damaged, so nothing can be decided: {cause}")
    return RequestError(503, f"The decision could not be recorded at the moment: {cause}")

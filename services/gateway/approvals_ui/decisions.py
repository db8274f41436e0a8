"""A decision of somebody who has signed in: over what they were shown, recorded or refused, the run woken."""

from blocks.approvals.base import ApprovalRequest, Decision
from blocks.common.errors import Conflict, Corrupt, NotFound, PortError
from blocks.environment import Environment
from services.gateway.approvals_ui.users import ApprovalsContext, SignedInUser
from services.gateway.approvals_ui.web import RequestError
from tasks.approval.requests import submit_decision
from tasks.approval.rules.approval import check_decider
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import current_approval_policy, environment_people

MAX_REASON_LENGTH = 2_000


def find_request(env: Environment, name: str) -> ApprovalRequest:
    """Return a request of this environment. Raises Denied when there is none by that name."""
    try:
        request = env.approvals().approval_request(name)
    except NotFound:
        request = None
    except PortError as cause:
        raise RequestError(503, "The ledger does not answer just now. Try again.") from cause
    if request is None or request.environment != env.name:
        raise RequestError(404, "There is no such request.")
    return request


def record_decision(
    desk: ApprovalsContext,
    visitor: SignedInUser,
    name: str,
    *,
    approved: bool,
    reason: str,
    shown_digest: str,
    channel: str,
) -> Decision:
    """Record the visitor's decision; `channel` is the way it came ("approvals page"), `shown_digest` what was shown.

    Raises:
        Denied: it does not count; what the rules refused is in the ledger.
    """
    env = desk.current_environment()
    request = find_request(env, name)
    if visitor.permission != "decide":
        raise RequestError(403, "Your roles let you look, not decide.")
    if len(reason) > MAX_REASON_LENGTH:
        raise RequestError(422, f"The reason is longer than {MAX_REASON_LENGTH:,} letters.")
    try:
        made = submit_decision(
            env,
            request.id,
            approved=approved,
            decided_by=visitor.name,
            reason=reason,
            channel=f"{channel}, {visitor.sign_in_method}",
            now=desk.clock(),
            authenticated=True,
            roles=visitor.roles,
            shown_digest=shown_digest,
        )
    except (Refusal, PortError) as cause:
        raise _to_request_error(cause) from cause
    desk.on_decision()
    return made


def cannot_decide_reason(desk: ApprovalsContext, visitor: SignedInUser, request: ApprovalRequest) -> str:
    """Return why the visitor may not decide the request, "" when they may: nothing is recorded of this."""
    if visitor.permission != "decide":
        return "Your roles let you look, not decide."
    env = desk.current_environment()
    try:
        check_decider(
            request, visitor.name, "a reason to come", desk.clock(), authenticated=True, proved_roles=visitor.roles,
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
    return RequestError(503, f"It could not be recorded just now: {cause}")

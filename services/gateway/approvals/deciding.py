"""A decision of somebody who has signed in: over what they were shown, recorded or refused, the run woken."""

from blocks.approvals.base import ApprovalRequest, Decision
from blocks.common.errors import Conflict, Corrupt, NotFound, PortError
from blocks.environment import Environment
from services.gateway.approvals.people import Desk, Visitor
from services.gateway.approvals.web import Denied
from tasks.approval.requests import decide
from tasks.approval.rules.approval import check_decider
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import people_of, policy_now

LONGEST_REASON = 2_000


def request_of(world: Environment, name: str) -> ApprovalRequest:
    """Return a request of this environment. Raises Denied when there is none by that name."""
    try:
        request = world.approvals().approval_request(name)
    except NotFound:
        request = None
    except PortError as cause:
        raise Denied(503, "The ledger does not answer just now. Try again.") from cause
    if request is None or request.environment != world.name:
        raise Denied(404, "There is no such request.")
    return request


def settle(desk: Desk, visitor: Visitor, name: str, *, approved: bool, reason: str, digest: str, by: str) -> Decision:
    """Record the visitor's decision; `by` is the way it came ("approvals page"), `digest` what was shown.

    Raises:
        Denied: it does not count; what the rules refused is in the ledger.
    """
    world = desk.world()
    request = request_of(world, name)
    if visitor.may != "decide":
        raise Denied(403, "Your roles let you look, not decide.")
    if len(reason) > LONGEST_REASON:
        raise Denied(422, f"The reason is longer than {LONGEST_REASON:,} letters.")
    try:
        made = decide(
            world,
            request.id,
            approved=approved,
            by=visitor.name,
            reason=reason,
            channel=f"{by}, {visitor.how}",
            now=desk.clock(),
            authenticated=True,
            roles=visitor.roles,
            shown=digest,
        )
    except (Refusal, PortError) as cause:
        raise _denied(cause) from cause
    desk.woken()
    return made


def why_not(desk: Desk, visitor: Visitor, request: ApprovalRequest) -> str:
    """Return why the visitor may not decide the request, "" when they may: nothing is recorded of this."""
    if visitor.may != "decide":
        return "Your roles let you look, not decide."
    world = desk.world()
    try:
        check_decider(
            request, visitor.name, "a reason to come", desk.clock(), authenticated=True, proved=visitor.roles,
            people=people_of(world), policy=policy_now(world, request.model),
        )  # fmt: skip
    except Refusal as refusal:
        return f"{refusal.problem[:1].upper()}{refusal.problem[1:]}. {refusal.remedy}".strip()
    return ""


def _denied(cause: Exception) -> Denied:
    if isinstance(cause, Refusal):
        return Denied(403, str(cause))
    if isinstance(cause, NotFound):
        return Denied(404, "There is no such request.")
    if isinstance(cause, Conflict):
        return Denied(409, str(cause))
    if isinstance(cause, Corrupt):
        return Denied(503, f"The record of decisions is damaged, so nothing can be decided: {cause}")
    return Denied(503, f"It could not be recorded just now: {cause}")

"""The rules of approvals: who may decide on a request, and whether the decisions allow a deployment.

Resuming the suspended flow run grants nothing. Only these checks do.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from blocks.records.approvals import ApprovalRequest, Decision
from tasks.approval.rules.evidence import text_digest
from tasks.approval.rules.names import check_person_name, check_reason
from tasks.approval.rules.people import People
from tasks.approval.rules.policy import ApprovalRequirements, RunOrigin, check_four_eyes, check_requester
from tasks.shared.rules.refusal import Refusal

CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far the clocks of two machines may differ. A time that goes back by more is refused."""

NO_PEOPLE = People()
PERMISSIVE_POLICY = ApprovalRequirements(four_eyes=False)
"""A policy that adds no requirement to those of the request itself."""


def check_decider(
    request: ApprovalRequest,
    decided_by: str,
    reason: str,
    now: datetime,
    *,
    authenticated: bool = False,
    proved_roles: Sequence[str] = (),
    people: People = NO_PEOPLE,
    policy: ApprovalRequirements = PERMISSIVE_POLICY,
) -> None:
    """Check that `decided_by` may decide on the request at `now`, for or against, with this reason.

    Args:
        request: the request in the ledger. It names the requester, the authors, and who may decide.
        decided_by: the person's name or e-mail address.
        now: the time of the decision, with a zone.
        authenticated: whether the channel authenticated the person.
        proved_roles: the roles that the authentication proved, in addition to those of `people`.
        people: the names and roles of people, as configured now.
        policy: the requirements as configured now. A decision must meet these and the request's own.

    Raises:
        Refusal: the name has fewer than 2 letters or mixes scripts, or the reason has fewer than 3, or one has hidden
            characters; the request has expired; the four-eyes rule applies and the person may be the requester or an
            author, or one of these cannot be identified; or the person is revoked, is not an approver, has none of the
            roles, or was not authenticated.
    """
    where = f"approval request {request.id}"
    check_person_name(decided_by, where)
    check_reason(reason, where)
    if _require_timezone(now, where) >= _require_timezone(request.expires_at, where):
        raise Refusal(
            "the request has expired", where=where, value=request.expires_at.isoformat(), remedy="Request it again."
        )
    if request.four_eyes or policy.four_eyes:
        origin = RunOrigin(request.requested_by, request.requester_authenticated, request.authors)
        check_four_eyes(origin, decided_by, people, where, every_author=policy.require_authentication)
    if people.is_revoked(decided_by):
        raise Refusal(
            "the right of this person to decide is revoked", where=where, value=decided_by, remedy="Ask another person."
        )
    for names in (request.approvers, policy.approvers):
        if names and not any(people.is_named(decided_by, name) for name in names):
            who = ", ".join(names)
            raise Refusal(
                "this person is not among the approvers", where=where, value=decided_by, remedy=f"Ask one of: {who}."
            )
    roles_held = people.roles_of(decided_by) | (frozenset(proved_roles) if authenticated else frozenset())
    for roles in (request.roles, policy.roles):
        if roles and not roles_held & set(roles):
            remedy = f"Ask someone with the role {' or '.join(roles)}."
            raise Refusal(
                "this person has none of the roles that may decide", where=where, value=decided_by, remedy=remedy
            )
    if policy.require_authentication and not authenticated:
        remedy = "Decide on the approvals page, signed in."
        raise Refusal("this person was not authenticated", where=where, value=decided_by, remedy=remedy)


def check_deployable(
    request: ApprovalRequest,
    decisions: Sequence[Decision],
    *,
    evidence_digest: str,
    current_champion: str,
    evaluated_champion: str,
    now: datetime,
    people: People = NO_PEOPLE,
    policy: ApprovalRequirements = PERMISSIVE_POLICY,
) -> None:
    """Check that the approved evidence may be deployed at `now`. Returns only if every condition holds.

    Args:
        request: the request in the ledger.
        decisions: its decisions in the ledger, in order, with verified signatures.
        evidence_digest: the digest that the deployer has just computed over what it is about to deploy.
        current_champion: the deployed version, "" for none.
        evaluated_champion: the version that the challenger was evaluated against, "" for none.
        now: the time of the deployment, with a zone.
        people: the names and roles of people, as configured now. A role that was lost since approves nothing.
        policy: the requirements as configured now.

    Raises:
        Refusal: the request is undecided, rejected, or about other evidence; too few people have approved; an
            approver was not entitled or decided too early or too late; the approval has expired; or the champion
            has changed.
    """
    where = f"approval request {request.id}"
    if not decisions:
        raise Refusal("nobody has decided yet", where=where, remedy="Approve it, or wait.")
    check_requester(policy, request.requested_by, authenticated=request.requester_authenticated)
    for decision in decisions:
        if decision.approved is not True:
            raise Refusal(f"was rejected by {decision.by}: {decision.reason}", where=where)
        _check_digests(request, decision, evidence_digest, where)
        _check_times(request, decision, now, where)
        check_decider(
            request, decision.by, decision.reason, decision.at,
            authenticated=decision.authenticated is True, proved_roles=decision.roles, people=people, policy=policy,
        )  # fmt: skip
    needed = policy.approvals_of(requester_authenticated=request.requester_authenticated)
    _check_approval_count(decisions, max(request.approvals, needed), people, where)
    if current_champion != evaluated_champion:
        problem = f"the champion has changed since the evaluation, from {evaluated_champion or 'none'}"
        remedy = "Run retrain again: it evaluates against the current champion."
        raise Refusal(problem, where=where, value=current_champion or "none", remedy=remedy)


def check_clock(latest: datetime, now: datetime) -> None:
    """Refuse to decide or deploy when the clock is behind the newest record: nothing would expire then."""
    if now < latest - CLOCK_TOLERANCE:
        remedy = "Correct the clock: requests expire by it."
        raise Refusal(
            "the clock has gone back", where="ledger", value=f"{now.isoformat()} < {latest.isoformat()}", remedy=remedy
        )


def _check_approval_count(decisions: Sequence[Decision], needed: int, people: People, where: str) -> None:
    distinct_approvers: list[str] = []
    for decision in decisions:
        if not any(people.is_same_person(decision.by, name) for name in distinct_approvers):
            distinct_approvers.append(decision.by)
    if len(distinct_approvers) < needed:
        remedy = "Ask another person to approve."
        raise Refusal(f"{needed} people must approve", where=where, value=distinct_approvers, remedy=remedy)


def _check_digests(request: ApprovalRequest, decision: Decision, evidence_digest: str, where: str) -> None:
    if decision.request_id != request.id:
        raise Refusal("the decision is about another request", where=where, value=decision.request_id)
    if decision.digest != request.digest:
        raise Refusal("the decision is about other evidence", where=where, value=decision.digest)
    if text_digest(request.evidence) != request.digest:
        raise Refusal("the evidence of the request does not match its digest", where=where, value=request.digest)
    if evidence_digest != request.digest:
        problem, remedy = "this evidence is not what was approved", "Request approval of this evidence."
        raise Refusal(problem, where=where, value=evidence_digest, remedy=remedy)


def _check_times(request: ApprovalRequest, decision: Decision, now: datetime, where: str) -> None:
    requested, decided = _require_timezone(request.requested_at, where), _require_timezone(decision.at, where)
    expires, now = _require_timezone(request.expires_at, where), _require_timezone(now, where)
    if decided >= expires:
        raise Refusal("was decided after it had expired", where=where, value=decided.isoformat())
    if decided < requested - CLOCK_TOLERANCE:
        raise Refusal("was decided before it was requested", where=where, value=decided.isoformat())
    if now < decided - CLOCK_TOLERANCE:
        raise Refusal("was decided in the future: check the clock", where=where, value=decided.isoformat())
    if now >= expires:
        raise Refusal(
            "the approval has expired", where=where, value=request.expires_at.isoformat(), remedy="Request it again."
        )


def _require_timezone(time: datetime, where: str) -> datetime:
    if time.utcoffset() is None:
        raise Refusal("the time has no zone", where=where, value=time.isoformat())
    return time

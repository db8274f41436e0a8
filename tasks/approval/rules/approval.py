"""Who may decide, and when decisions let a model be deployed. A resumed flow run is no permission; this is."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from tasks.approval.rules.evidence import text_digest
from tasks.approval.rules.people import People, normalized_name
from tasks.approval.rules.policy import ApprovalRequirements
from tasks.shared.rules.refusal import Refusal

CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far two machines' clocks may differ before a time that runs backwards is refused."""


class ApprovalRequestLike(Protocol):
    """What these rules read of an approval request."""

    @property
    def id(self) -> str:
        """Its name in the ledger."""

    @property
    def digest(self) -> str:
        """SHA-256 of the evidence."""

    @property
    def evidence(self) -> str:
        """The evidence as it was shown: canonical JSON."""

    @property
    def requested_by(self) -> str:
        """Who asked."""

    @property
    def requested_at(self) -> datetime:
        """When, with a time zone."""

    @property
    def expires_at(self) -> datetime:
        """From when on it counts no more, with a time zone."""

    @property
    def approvers(self) -> tuple[str, ...]:
        """Who may decide; empty: anyone with a name."""

    @property
    def four_eyes(self) -> bool:
        """Whether neither who asked nor an author may decide."""

    @property
    def authors(self) -> tuple[str, ...]:
        """Who wrote the code that made the model."""

    @property
    def approvals(self) -> int:
        """How many different people must approve."""

    @property
    def roles(self) -> tuple[str, ...]:
        """Who decides bears one of these; empty: any."""


class DecisionLike(Protocol):
    """What these rules read of a decision."""

    @property
    def request_id(self) -> str:
        """The request that it answers."""

    @property
    def digest(self) -> str:
        """SHA-256 of the evidence that was decided on."""

    @property
    def approved(self) -> bool:
        """Yes or no."""

    @property
    def by(self) -> str:
        """Who decided."""

    @property
    def reason(self) -> str:
        """Why."""

    @property
    def at(self) -> datetime:
        """When, with a time zone."""

    @property
    def authenticated(self) -> bool:
        """Whether the channel proved who it was."""

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that the channel proved with that."""


NO_PEOPLE = People()
PERMISSIVE_POLICY = ApprovalRequirements(four_eyes=False)
"""The policy that asks for nothing more than the request itself does."""


def check_decider(
    request: ApprovalRequestLike,
    decided_by: str,
    reason: str,
    now: datetime,
    *,
    authenticated: bool = False,
    proved_roles: Sequence[str] = (),
    people: People = NO_PEOPLE,
    policy: ApprovalRequirements = PERMISSIVE_POLICY,
) -> None:
    """Let `decided_by` decide the request at `now`, for or against, for this reason.

    Args:
        request: from the ledger: who asked, who wrote the code, and who may decide as it was asked.
        by, reason, now: the decision.
        authenticated: whether the channel proved who it is.
        proved_roles: the roles that it proved with that, besides those that `people` says.
        people: the names and roles of people, as they are now.
        policy: what is asked for now; both the request's own and this must be kept.

    Raises:
        Refusal: the name has fewer than 2 letters or the reason fewer than 3; the request has expired; who
            asked, or who wrote the code, decides although it takes four eyes; the name is barred, is not on the
            list of approvers, or bears none of the roles, or nobody proved that it is theirs.
    """
    where = f"approval request {request.id}"
    _check_name_and_reason(where, decided_by, reason)
    if _require_timezone(now, where) >= _require_timezone(request.expires_at, where):
        raise Refusal("the request has expired", where=where, value=_expiry_text(request), remedy="Ask again.")
    if request.four_eyes or policy.four_eyes:
        _check_four_eyes(request, decided_by, people, where)
    if people.is_barred(decided_by):
        raise Refusal("the name is barred from deciding", where=where, value=decided_by, remedy="Ask another person.")
    for names in (request.approvers, policy.approvers):
        if names and not any(people.is_same_person(decided_by, name) for name in names):
            who = ", ".join(names)
            raise Refusal(
                "the name is not among the approvers", where=where, value=decided_by, remedy=f"Ask one of: {who}."
            )
    roles_held = people.roles_of(decided_by) | (frozenset(proved_roles) if authenticated else frozenset())
    for roles in (request.roles, policy.roles):
        if roles and not roles_held & set(roles):
            remedy = f"Ask someone with the role {' or '.join(roles)}."
            raise Refusal(
                "the name bears none of the roles that may decide", where=where, value=decided_by, remedy=remedy
            )
    if policy.authenticated and not authenticated:
        remedy = "Decide on the approvals page, signed in."
        raise Refusal("nobody proved that this name is theirs", where=where, value=decided_by, remedy=remedy)


def check_deployable(
    request: ApprovalRequestLike,
    decisions: Sequence[DecisionLike],
    *,
    evidence_digest: str,
    current_champion: str,
    evaluated_champion: str,
    now: datetime,
    people: People = NO_PEOPLE,
    policy: ApprovalRequirements = PERMISSIVE_POLICY,
) -> None:
    """Let the evidence that was approved be deployed at `now`. Returns only if every condition holds.

    Args:
        request: from the ledger.
        decisions: from the ledger, in order, their signatures verified.
        evidence_digest: computed now, by the deployer, over what it is about to deploy.
        current_champion: the version that serves, "" for none.
        evaluated_champion: the version that the evidence was held against, "" for none.
        now: with a time zone.
        people, policy: who is who, and what is asked for, now: who has lost a role since approves nothing.

    Raises:
        Refusal: the request is undecided, rejected, or over other evidence; too few have approved; one who did
            was not entitled, or did outside its time; it has expired; or another champion serves by now.
    """
    where = f"approval request {request.id}"
    if not decisions:
        raise Refusal("nobody has decided yet", where=where, remedy="Approve it, or wait.")
    for decision in decisions:
        if decision.approved is not True:
            raise Refusal(f"was rejected by {decision.by}: {decision.reason}", where=where)
        _check_digests(request, decision, evidence_digest, where)
        _check_times(request, decision, now, where)
        check_decider(
            request, decision.by, decision.reason, decision.at,
            authenticated=decision.authenticated is True, proved_roles=decision.roles, people=people, policy=policy,
        )  # fmt: skip
    _check_approval_count(decisions, max(1, request.approvals, policy.approvals), people, where)
    if current_champion != evaluated_champion:
        problem = f"the champion has changed since the evaluation, from {evaluated_champion or 'none'}"
        remedy = "Run retrain again: it evaluates against the champion of now."
        raise Refusal(problem, where=where, value=current_champion or "none", remedy=remedy)


def check_clock(latest: datetime, now: datetime) -> None:
    """Refuse to decide or deploy by a clock that has gone back behind what was recorded: nothing would expire.

    Args:
        latest: the time of the newest record.
        now: with a time zone.
    """
    if now < latest - CLOCK_TOLERANCE:
        remedy = "Set the clock right: expiry is counted by it."
        raise Refusal(
            "the clock has gone back", where="ledger", value=f"{now.isoformat()} < {latest.isoformat()}", remedy=remedy
        )


def _check_approval_count(decisions: Sequence[DecisionLike], needed: int, people: People, where: str) -> None:
    distinct_approvers: list[str] = []
    for decision in decisions:
        if not any(people.is_same_person(decision.by, name) for name in distinct_approvers):
            distinct_approvers.append(decision.by)
    if len(distinct_approvers) < needed:
        remedy = "Ask another person to approve."
        raise Refusal(f"{needed} people must approve", where=where, value=distinct_approvers, remedy=remedy)


def _check_name_and_reason(where: str, by: str, reason: str) -> None:
    if len(normalized_name(by)) < 2:
        raise Refusal("a decision needs a name of 2 letters or more", where=where, value=by)
    if len(normalized_name(reason)) < 3:
        raise Refusal("a decision needs a reason of 3 letters or more", where=where, value=reason)


def _check_four_eyes(request: ApprovalRequestLike, by: str, people: People, where: str) -> None:
    if not normalized_name(request.requested_by):
        raise Refusal("nobody is named who asked, so four eyes cannot be checked", where=where, remedy="Ask again.")
    remedy = "Someone else must decide."
    if people.is_same_person(by, request.requested_by):
        raise Refusal("who asked may not decide", where=where, value=request.requested_by, remedy=remedy)
    if wrote := next((author for author in request.authors if people.is_same_person(by, author)), None):
        raise Refusal("who wrote the code may not decide", where=where, value=wrote, remedy=remedy)


def _check_digests(request: ApprovalRequestLike, decision: DecisionLike, evidence_digest: str, where: str) -> None:
    if decision.request_id != request.id:
        raise Refusal("the decision answers another request", where=where, value=decision.request_id)
    if decision.digest != request.digest:
        raise Refusal("the decision is over other evidence", where=where, value=decision.digest)
    if text_digest(request.evidence) != request.digest:
        raise Refusal("the evidence that was shown is not that of the digest", where=where, value=request.digest)
    if evidence_digest != request.digest:
        problem, remedy = "what is to be deployed is not what was approved", "Ask for approval of this evidence."
        raise Refusal(problem, where=where, value=evidence_digest, remedy=remedy)


def _check_times(request: ApprovalRequestLike, decision: DecisionLike, now: datetime, where: str) -> None:
    asked, decided = _require_timezone(request.requested_at, where), _require_timezone(decision.at, where)
    expires, now = _require_timezone(request.expires_at, where), _require_timezone(now, where)
    if decided >= expires:
        raise Refusal("was decided after it had expired", where=where, value=decided.isoformat())
    if decided < asked - CLOCK_TOLERANCE:
        raise Refusal("was decided before it was asked for", where=where, value=decided.isoformat())
    if now < decided - CLOCK_TOLERANCE:
        raise Refusal("was decided in the future: check the clock", where=where, value=decided.isoformat())
    if now >= expires:
        raise Refusal("the approval has expired", where=where, value=_expiry_text(request), remedy="Ask again.")


def _require_timezone(time: datetime, where: str) -> datetime:
    if time.utcoffset() is None:
        raise Refusal("a time without a zone", where=where, value=time.isoformat())
    return time


def _expiry_text(request: ApprovalRequestLike) -> str:
    return request.expires_at.isoformat()

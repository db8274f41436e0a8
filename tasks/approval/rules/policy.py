"""What an approval requires, which gates of a model people may waive, and which gates the waivers open."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from blocks.records.approvals import UnauthenticatedRequester, Waiver
from blocks.records.identity import UNKNOWN_HISTORY, mixed_script_word
from tasks.approval.rules.names import check_person_name, check_reason
from tasks.approval.rules.people import People
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.promotion import leak_gates
from tasks.shared.rules.refusal import Refusal

MAX_WAIVER_DURATION = timedelta(days=90)
"""The longest duration of a waiver. A permanent exception belongs in model.yaml."""


@dataclass(frozen=True)
class RunOrigin:
    """Whose work a challenger is: who requested the run, whether anything proved that, and the authors of its code."""

    requested_by: str
    authenticated: bool = False
    authors: tuple[str, ...] = ()


@dataclass(frozen=True)
class ApprovalRequirements:
    """The requirements of an approval.

    Attributes:
        approvals: how many different people must approve.
        roles: each approver needs one of these roles. Empty: no role is needed.
        approvers: only these people may approve. Empty: anyone.
        four_eyes: the requester and the authors of the code may not decide.
        expires_days: days after which a request expires.
        require_authentication: a decision counts only when its channel authenticated the person.
        unauthenticated_requester: what holds, with four eyes and required authentication, when nobody proved who
            requested the run (a schedule, the Prefect UI): one more approver, a refusal, or nothing.
    """

    approvals: int = 1
    roles: tuple[str, ...] = ()
    approvers: tuple[str, ...] = ()
    four_eyes: bool = True
    expires_days: int = 7
    require_authentication: bool = False
    unauthenticated_requester: UnauthenticatedRequester = "extra_approver"

    def approvals_of(self, *, requester_authenticated: bool) -> int:
        """Return how many different people must approve a request: one more when nobody proved who requested it."""
        return max(1, self.approvals) + self._extra_people(requester_authenticated)

    def waivers_of(self, *, requester_authenticated: bool) -> int:
        """Return how many different people must waive a gate: one more when nobody proved who requested the run."""
        return 1 + self._extra_people(requester_authenticated)

    def refuses_requester(self, *, requester_authenticated: bool) -> bool:
        """Return whether a request is refused because nobody proved who requested it."""
        return self._doubts(requester_authenticated) and self.unauthenticated_requester == "refuse"

    def _extra_people(self, requester_authenticated: bool) -> int:
        return int(self._doubts(requester_authenticated) and self.unauthenticated_requester == "extra_approver")

    def _doubts(self, requester_authenticated: bool) -> bool:
        """Whether the four-eyes rule would rest on a name that nobody proved, where names are proved."""
        return self.four_eyes and self.require_authentication and not requester_authenticated


def check_requester(policy: ApprovalRequirements, requested_by: str, *, authenticated: bool) -> None:
    """Refuse a request of somebody who was not authenticated, when the policy refuses those."""
    if policy.refuses_requester(requester_authenticated=authenticated):
        raise Refusal(
            "nobody proved who requested this run",
            where="approval.unauthenticated_requester",
            value=requested_by,
            remedy="Start the run signed in at the gateway, by its API, or by a push (docs/actions.md).",
        )


def stricter_requirements(model: ApprovalRequirements, environment: ApprovalRequirements) -> ApprovalRequirements:
    """Return requirements that satisfy both. When both name people or roles, those of the environment apply."""
    return ApprovalRequirements(
        approvals=max(model.approvals, environment.approvals),
        roles=environment.roles or model.roles,
        approvers=environment.approvers or model.approvers,
        four_eyes=model.four_eyes or environment.four_eyes,
        expires_days=min(model.expires_days, environment.expires_days),
        require_authentication=model.require_authentication or environment.require_authentication,
        unauthenticated_requester=environment.unauthenticated_requester,
    )


def waivable_gates(spec: ModelSpec) -> tuple[str, ...]:
    """Return the gates that may be waived: also the signs of a leak, but no proven leak, and no metric that is NaN."""
    rules = spec.evaluation
    slices = [f"{rule.metric} by {rule.column}" for rule in rules.slices]
    own = ["minimum_rows", *(floor.metric for floor in rules.floors), *slices, "comparison"]
    return tuple(dict.fromkeys([*own, *leak_gates(spec.task, spec.data.features)]))


def check_waiver(waiver: Waiver, spec: ModelSpec, people: People, policy: ApprovalRequirements) -> None:
    """Check that a waiver may be recorded.

    Raises:
        Refusal: it has no name, no reason, a gate that the model does not have, or an end that is past or too far
            ahead; or the person may not decide on this model.
    """
    known = waivable_gates(spec)
    check_person_name(waiver.waived_by, "waiver")
    check_reason(waiver.reason, "waiver")
    if unknown := [gate for gate in waiver.gates if gate not in known] or ([] if waiver.gates else [""]):
        raise Refusal(
            "there is no such gate", where="waiver", value=unknown[0], remedy=f"There are: {_shortened(known)}."
        )
    if not waiver.at < waiver.until <= waiver.at + MAX_WAIVER_DURATION:
        remedy = f"Give an end after now, and at most {MAX_WAIVER_DURATION.days} days ahead."
        problem = "the end of the waiver is past or too far ahead"
        raise Refusal(problem, where="waiver", value=waiver.until.isoformat(), remedy=remedy)
    if problem := _entitlement_problem(waiver, people, policy):
        remedy = "Ask someone who may decide on this model."
        raise Refusal(problem, where="waiver", value=waiver.waived_by, remedy=remedy)


def covering_waivers(
    waivers: Mapping[str, Waiver],
    gates: Iterable[str],
    *,
    origin: RunOrigin,
    people: People,
    policy: ApprovalRequirements,
    now: datetime,
) -> tuple[str, ...]:
    """Return the names of the waivers that together open all the gates; none when a gate stays closed.

    A waiver counts only when its person may waive now. Under the four-eyes rule this is neither the requester of the
    run nor an author of its code; and where nobody proved who requested it, each gate needs waivers of two people, or
    stays closed, as `policy.unauthenticated_requester` says.
    """
    if policy.refuses_requester(requester_authenticated=origin.authenticated):
        return ()
    valid = {
        name: waiver
        for name, waiver in waivers.items()
        if waiver.at <= now < waiver.until
        and not _entitlement_problem(waiver, people, policy)
        and _is_independent(waiver.waived_by, origin, people, policy)
    }
    needed, used = policy.waivers_of(requester_authenticated=origin.authenticated), list[str]()
    for gate in gates:
        chosen = dict[str, str]()
        for name, waiver in valid.items():
            known = any(people.is_same_person(waiver.waived_by, each) for each in chosen.values())
            if gate and gate in waiver.gates and not known and len(chosen) < needed:
                chosen[name] = waiver.waived_by
        if len(chosen) < needed:
            return ()
        used += chosen
    return tuple(dict.fromkeys(used))


def check_four_eyes(origin: RunOrigin, by: str, people: People, where: str, *, every_author: bool) -> None:
    """Refuse the requester, the authors, and everyone when it is unknown who one of them is.

    Only with `every_author` this includes authors that the checkout does not tell: where names are not proved, four
    eyes detect mistakes, and a checkout without its history is no mistake.

    Raises:
        Refusal: this person may be one of them, or that cannot be told.
    """
    if not people.is_identified(origin.requested_by):
        problem = "the requester cannot be identified, so the four-eyes rule cannot be checked"
        remedy = "Request approval again under a name, or declare this one as an alias in [people]."
        raise Refusal(problem, where=where, value=origin.requested_by, remedy=remedy)
    if not people.is_identified(by):
        remedy = "Decide under a name of your own, or declare this one as an alias in [people]."
        raise Refusal("the name does not tell who decides", where=where, value=by, remedy=remedy)
    remedy = "Someone else must decide."
    if people.is_same_person(by, origin.requested_by):
        raise Refusal("the requester may not decide", where=where, value=origin.requested_by, remedy=remedy)
    if matching := next((author for author in origin.authors if people.is_same_person(by, author)), None):
        raise Refusal("an author of the code may not decide", where=where, value=matching, remedy=remedy)
    for author in origin.authors:
        untold = author.startswith(UNKNOWN_HISTORY)
        if not people.is_identified(author) and (every_author or not untold):
            problem = "an author of the code cannot be identified, so the four-eyes rule cannot be checked"
            remedy = (
                "Run the worker from a whole clone (git fetch --unshallow) without changes, and request it again."
                if untold
                else "Declare whose name this is as an alias in [people]."
            )
            raise Refusal(problem, where=where, value=author, remedy=remedy)


def _is_independent(name: str, origin: RunOrigin, people: People, policy: ApprovalRequirements) -> bool:
    """Whether the four-eyes rule lets the person with this name waive gates of the run."""
    if not policy.four_eyes:
        return True
    with suppress(Refusal):
        check_four_eyes(origin, name, people, "waiver", every_author=policy.require_authentication)
        return True
    return False


def _shortened(gates: Sequence[str]) -> str:
    """Return the names of the gates, at most 20."""
    return ", ".join(gates[:20]) + (f" and {len(gates) - 20} more" if len(gates) > 20 else "")


def _entitlement_problem(waiver: Waiver, people: People, policy: ApprovalRequirements) -> str:
    if mixed_script_word(waiver.waived_by):
        return "the name mixes letters that look alike"
    if people.is_revoked(waiver.waived_by):
        return "the right of this person to decide is revoked"
    if policy.approvers and not any(people.is_named(waiver.waived_by, name) for name in policy.approvers):
        return "this person is not among the approvers"
    held = people.roles_of(waiver.waived_by) | (frozenset(waiver.roles) if waiver.authenticated else frozenset())
    if policy.roles and not held & set(policy.roles):
        return "this person has none of the roles that may decide"
    if policy.require_authentication and not waiver.authenticated:
        return "this person was not authenticated"
    return ""

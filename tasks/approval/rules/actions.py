"""The rules of actions: whom the policy of an environment admits, and which act an order permits.

An order is signed where people sign in, for one act: an action on a model with these parameters. Whoever does the act
checks the order again. Without one a name is only text, and the policy says whether it is refused or marked.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from blocks.records.actions import Action, ActionOrder, ActionPolicy, RunPolicy
from blocks.records.approvals import ApprovalRequest, Decision
from blocks.records.deployments import Deployment
from runtime.digests import text_digest
from tasks.approval.rules.approval import CLOCK_TOLERANCE
from tasks.approval.rules.history import rollback_target
from tasks.approval.rules.names import check_person_name, shown_name
from tasks.approval.rules.people import People
from tasks.shared.rules.refusal import Refusal

ORDER_PARAMETER = "order"
"""The parameter of a flow that names the order; every other parameter is covered by the order."""


@dataclass(frozen=True)
class Act:
    """What is about to be done: an action on a model ("" for all of them) in an environment.

    `parameters` are all parameters of the flow run by name, and `defaults` the names of those that have the flow's own
    default: an order need not name them. `also` are the other models whose data or versions the act touches.
    """

    action: Action
    environment: str
    model: str
    target: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    defaults: frozenset[str] = frozenset()
    also: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The place that a refusal names."""
        return " ".join(filter(None, (self.action.replace("_", " "), self.model, self.target)))


@dataclass(frozen=True)
class Actor:
    """Who does an act: the name, whether a sign-in proved it, the proved roles, and the order ("" for none).

    `person` is False for a schedule and for auto-retrain.
    """

    by: str
    authenticated: bool = False
    roles: tuple[str, ...] = ()
    order_id: str = ""
    person: bool = True

    @property
    def shown(self) -> str:
        """The name as pages, messages and records show it."""
        return shown_name(self.by, authenticated=self.authenticated)


def parameter_digests(parameters: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return name and digest of each parameter but the order itself, sorted by name."""
    return tuple(
        (name, text_digest(_canonical(value), "surrogatepass"))
        for name, value in sorted(parameters.items())
        if name != ORDER_PARAMETER
    )


def _canonical(value: Any) -> str:
    """Return a value as JSON; 30 and 30.0 are one value, as they are for a flow's parameter."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(name)}:{_canonical(each)}" for name, each in sorted(value.items())) + "}"
    return json.dumps(value, default=str)


def check_order(order: ActionOrder, act: Act, now: datetime, *, in_use: bool) -> None:
    """Check that an order permits exactly this act now.

    `in_use`: this run began with the order, so it may go on after the order has expired (it was suspended, or retried).

    Raises:
        Refusal: the order is for another action, environment, model, target or parameter, or not valid at `now`.
    """
    wanted = {"action": act.action, "environment": act.environment, "model": act.model}
    given = {"action": order.action, "environment": order.environment, "model": order.model}
    if act.target:
        wanted, given = {**wanted, "target": act.target}, {**given, "target": order.target}
    for name, value in wanted.items():
        if given[name] != value:
            raise _misuse(act, f"the order is for another {name}", given[name])
    ordered = dict(order.parameters)
    for name, digest in parameter_digests(act.parameters):
        if name not in ordered and name in act.defaults:
            continue
        if ordered.pop(name, None) != digest:
            raise _misuse(act, "a parameter is not the one that was ordered", name)
    if ordered:
        raise _misuse(act, "a parameter that was ordered is missing", min(ordered))
    if now < order.at - CLOCK_TOLERANCE:
        raise _misuse(act, "the order is of a later time: check the clock", order.at.isoformat())
    if now >= order.expires and not in_use:
        raise _misuse(act, "the order has expired", order.expires.isoformat())


def _misuse(act: Act, problem: str, value: str) -> Refusal:
    return Refusal(problem, where=act.where, value=value, remedy="Order exactly this act.")


def check_permitted(act: Act, actor: Actor, policy: ActionPolicy, people: People, *, strict: bool, way: str) -> None:
    """Check that the policy admits the actor.

    Args:
        act: what is about to be done.
        actor: who does it.
        policy: the environment's policy of the action.
        people: the names and roles of people, as configured now.
        strict: whether a name that nobody proved is refused.
        way: how to do it authenticated; the remedy of a refusal.

    Raises:
        Refusal: the actor is not authenticated, is revoked or excluded, or is not among the people or roles.
    """
    if not actor.person:
        if not (isinstance(policy, RunPolicy) and policy.automatic):
            raise Refusal("runs without a person are switched off", where=act.where, value=actor.by, remedy=way)
        return
    if strict and not actor.authenticated:
        raise Refusal("this person was not authenticated", where=act.where, value=actor.by, remedy=way)
    check_person_name(actor.by, act.where)
    if people.is_revoked(actor.by) or _is_one_of(actor.by, policy.excluded, people):
        raise Refusal("this person may not do this", where=act.where, value=actor.by, remedy="Ask another person.")
    if policy.people and not _is_one_of(actor.by, policy.people, people):
        remedy = f"Ask one of: {', '.join(policy.people)}."
        raise Refusal("this person is not among those who may", where=act.where, value=actor.by, remedy=remedy)
    held = people.roles_of(actor.by) | (frozenset(actor.roles) if actor.authenticated else frozenset())
    if policy.roles and not held & set(policy.roles):
        remedy = f"Ask someone with the role {' or '.join(policy.roles)}."
        raise Refusal("this person has none of the roles that may", where=act.where, value=actor.by, remedy=remedy)


def _is_one_of(name: str, names: Iterable[str], people: People) -> bool:
    return any(people.is_same_person(name, each) for each in names)


def check_previous(lines: Sequence[Deployment], target: str, deployed: str) -> None:
    """Refuse a rollback to another version than the one before the deployed one; restoring that one is allowed."""
    if target not in (deployed, rollback_target(lines)):
        remedy = "Leave to_version out; actions.rollback.to of the environment allows no other version."
        raise Refusal("only the previous version may be restored", value=target, remedy=remedy)


def check_approved(line: Deployment, request: ApprovalRequest, end: Decision | None) -> None:
    """Refuse a rollback to a version that was not approved; `end` is the verified decision that ended its request."""
    same = (request.model, request.environment, request.version) == (line.model, line.environment, line.version)
    if end is None or not end.approved or end.digest != request.digest or not same:
        remedy = "Name a version that people approved here; actions.rollback.to of the environment allows no other."
        raise Refusal("this version has no verified approval", where=line.id, value=line.version, remedy=remedy)

"""Start flow runs by signed orders: for signed-in people and their programs, the command line, and git hosts."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from blocks.common.errors import Rejected
from blocks.environment import Environment
from blocks.inbox.base import ProcessingAttempt
from services.gateway.rules.changes import RefChange
from services.gateway.rules.matching import RunRequest
from services.gateway.run_starter import FlowRunSpec, RunStarter
from tasks.approval.rules.actions import ORDER_PARAMETER, Act, Actor
from tasks.shared.actions import FLOW_ACTIONS, order_act
from tasks.shared.rules.refusal import Refusal

FLOWS_WITH_REQUESTER = ("retrain", "rollback")
"""The flows that have the parameter `requested_by`."""
MISSED = "missed"
"""The event of a delivery that a person added at the command line."""
FIRST_TURN = 0

OrderSigner = Callable[[ProcessingAttempt, RefChange, RunRequest], str]
"""Returns the id of the order for a run that a delivery starts; "" for none. Raises Rejected by the policy."""


def run_act(env: Environment, deployment: str, parameters: Mapping[str, Any]) -> Act:
    """Return the act of starting a deployed flow with these parameters; its target is the flow's name.

    Raises:
        Refusal: the flow has no orders.
    """
    flow = deployment.partition("/")[0]
    if flow not in FLOW_ACTIONS:
        known = ", ".join(sorted(FLOW_ACTIONS))
        raise Refusal("no order starts this flow", where="deployment", value=deployment, remedy=f"Flows: {known}.")
    return Act(FLOW_ACTIONS[flow], env.name, str(parameters.get("model") or ""), flow, parameters)


def start_ordered_run(
    env: Environment,
    starter: RunStarter,
    deployment: str,
    parameters: Mapping[str, Any],
    actor: Actor,
    *,
    reason: str,
    channel: str,
    now: datetime,
    variables: Mapping[str, str] | None = None,
    tags: tuple[str, ...] = (),
) -> tuple[Actor, str]:
    """Sign an order for a run and start the run; return the actor with the order, and the run's id.

    The environment is that of `env`, and the requester is the actor, whatever the parameters say. `variables` are set
    in the run's process.

    Raises:
        Refusal: the policy does not allow it; the attempt is recorded.
        Unavailable, Rejected: the run was not started. The order expires unused.
    """
    flow, given = deployment.partition("/")[0], {**parameters, "environment": env.name}
    if flow in FLOWS_WITH_REQUESTER:
        given["requested_by"] = actor.by
    if flow == "rollback":
        given["reason"] = reason
    signed = order_act(env, run_act(env, deployment, given), actor, reason=reason, channel=channel, now=now)
    ordered = {**given, ORDER_PARAMETER: signed.order_id} if signed.order_id else given
    key = f"order/{signed.order_id or uuid4()}"
    return signed, starter.start(FlowRunSpec(key, deployment, ordered, variables or {}, tags))


class DeliveryOrders:
    """Signs an order for each run that a verified delivery of a git host starts.

    The host's signature proves who pushed. A delivery that a person processes again, or adds, proves nobody. While a
    run cannot be started, the order of the first try is used again, so that retries do not fill the chain.
    """

    def __init__(
        self, environment: Callable[[], Environment], clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._environment, self._clock = environment, clock
        self._signed: dict[str, tuple[str, datetime]] = {}

    def __call__(self, turn: ProcessingAttempt, change: RefChange, planned: RunRequest) -> str:
        """Return the id of the order; "" without a key, for flows without orders, and for another environment.

        Raises:
            Rejected: the policy does not allow it.
        """
        env, now, key = self._environment(), self._clock(), f"{turn.key}/{planned.key}"
        self._signed = {each: signed for each, signed in self._signed.items() if now < signed[1]}
        if planned.deployment.partition("/")[0] not in FLOW_ACTIONS:
            return ""
        if planned.parameters.get("environment", "local") != env.name:
            return ""
        if key not in self._signed:
            until = now + timedelta(minutes=env.actions.order_minutes / 2)
            self._signed[key] = self._sign(env, turn, change, planned, now), until
        return self._signed[key][0]

    def _sign(
        self, env: Environment, turn: ProcessingAttempt, change: RefChange, planned: RunRequest, now: datetime
    ) -> str:
        delivery = turn.delivery
        verified = turn.number == FIRST_TURN and delivery.event != MISSED and bool(change.author)
        by = change.author if turn.number == FIRST_TURN else turn.requested_by
        actor = Actor(by or f"somebody at {delivery.sender}", authenticated=verified)
        reason = f"{change.kind} to {change.ref} of {change.repository} at {change.commit}"
        act = run_act(env, planned.deployment, planned.parameters)
        try:
            return order_act(env, act, actor, reason=reason, channel=f"webhook {delivery.sender}", now=now).order_id
        except Refusal as refusal:
            raise Rejected(str(refusal)) from refusal

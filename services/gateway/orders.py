"""Start flow runs by signed orders: for signed-in people and their programs, the command line, and git hosts."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from blocks.common.errors import Rejected
from blocks.environment import Environment
from blocks.inbox.base import Delivery, ProcessingAttempt
from blocks.records.identity import is_identified
from runtime.digests import text_digest
from services.gateway.rules.changes import RefChange
from services.gateway.rules.matching import RunRequest
from services.gateway.rules.payloads import SENDERS_WITHOUT_LOGINS
from services.gateway.run_starter import FlowRunSpec, RunStarter
from tasks.approval.rules.actions import ORDER_PARAMETER, Act, Actor
from tasks.shared.actions import FLOW_ACTIONS, order_act
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import decision_signer, environment_people

FLOWS_WITH_REQUESTER = ("retrain", "rollback")
"""The flows that have the parameter `requested_by`."""
MISSED = "missed"
"""The event of a delivery that a person added at the command line."""
FIRST_TURN = 0
SEAL_FORMAT = "ratchet delivery 1"
"""Begins what a seal signs: no other signature of the decisions key is a seal, and no seal is another signature."""

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

    The environment is that of `env`, the requester is the actor, and the order is the one signed here, whatever the
    parameters say. `variables` are set in the run's process.

    Raises:
        Refusal: the policy does not allow it; the attempt is recorded.
        Unavailable, Rejected: the run was not started. The order expires unused.
    """
    flow, given = deployment.partition("/")[0], {**parameters, "environment": env.name}
    given.pop(ORDER_PARAMETER, None)
    if flow in FLOWS_WITH_REQUESTER:
        given["requested_by"] = actor.by
    if flow == "rollback":
        given["reason"] = reason
    signed = order_act(env, run_act(env, deployment, given), actor, reason=reason, channel=channel, now=now)
    ordered = {**given, ORDER_PARAMETER: signed.order_id} if signed.order_id else given
    key = f"order/{signed.order_id or uuid4()}"
    return signed, starter.start(FlowRunSpec(key, deployment, ordered, variables or {}, tags))


def seal_delivery(env: Environment, delivery: Delivery, secrets: Iterable[str]) -> Delivery:
    """Return a delivery whose signature was verified, sealed with the decisions key.

    Without the key it stays unsealed, and so it does when one of the sender's secrets is in a Prefect block: who may
    write that block could sign as the host.
    """
    signer = decision_signer(env)
    if signer is None or not all(name.startswith("env:") for name in secrets):
        return delivery
    return replace(delivery, seal=f"{signer.key_id}:{signer.sign(_sealed_bytes(delivery)).hex()}")


def is_sealed(env: Environment, delivery: Delivery) -> bool:
    """Return whether a trusted decisions key has sealed the delivery as it is stored. Raises Rejected for a bad key."""
    key_id, _, signature = delivery.seal.partition(":")
    try:
        signed = bytes.fromhex(signature)
    except ValueError:
        return False
    return env.signing.trusted_keys("decisions").verifies(key_id, signed, _sealed_bytes(delivery))


def _sealed_bytes(delivery: Delivery) -> bytes:
    at = delivery.received_at.astimezone(UTC).isoformat(timespec="microseconds")
    fields = {name: value for name, value in asdict(delivery).items() if name != "seal"}
    return f"{SEAL_FORMAT}\n{text_digest(json.dumps({**fields, 'received_at': at}, sort_keys=True))}".encode()


class DeliveryOrders:
    """Signs an order for each run that a verified delivery of a git host starts.

    The host's signature proves who pushed, as long as the seal of the gateway that verified it does, and no longer than
    an order is valid. A delivery that a person processes again, or adds, proves nobody. While a run cannot be started,
    the order of the first try is used again, so that retries do not fill the chain.
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
        verified = self._is_proved(env, turn, change, now)
        by = change.author if turn.number == FIRST_TURN else turn.requested_by
        actor = Actor(by or f"somebody at {delivery.sender}", authenticated=verified)
        reason = f"{change.kind} to {change.ref} of {change.repository} at {change.commit}"
        act = run_act(env, planned.deployment, planned.parameters)
        try:
            return order_act(env, act, actor, reason=reason, channel=f"webhook {delivery.sender}", now=now).order_id
        except Refusal as refusal:
            raise Rejected(str(refusal)) from refusal

    def _is_proved(self, env: Environment, turn: ProcessingAttempt, change: RefChange, now: datetime) -> bool:
        delivery = turn.delivery
        if delivery.sender in SENDERS_WITHOUT_LOGINS:
            known = environment_people(env).is_declared(change.author)
        else:
            known = is_identified(change.author)
        in_time = now < delivery.received_at + timedelta(minutes=env.actions.order_minutes)
        return turn.number == FIRST_TURN and known and in_time and is_sealed(env, delivery)

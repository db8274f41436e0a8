"""Acts of people beside deciding: sign an order for one, and check the order and the policy before the act.

Every act passes here, whichever way it comes: the gateway's page and API, a git host's delivery, the command line, the
Prefect UI. `docs/actions.md` lists them.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from blocks.approvals.chain import record_from_entry
from blocks.environment import Environment
from blocks.records.actions import Action, ActionOrder
from tasks.approval.rules.actions import Act, Actor, check_order, check_permitted, parameter_digests
from tasks.approval.rules.approval import check_clock
from tasks.approval.rules.names import check_person_name, check_reason
from tasks.shared.models import ROOT
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import (
    current_approval_policy,
    decision_signer,
    environment_people,
    environment_policy,
    latest_signed_time,
    record_refusals,
    verified_chain,
)

FLOW_ACTIONS: dict[str, Action] = {
    "rollback": "rollback",
    "collect_garbage": "clean_up",
    "maintain_lake": "clean_up",
    "retrain": "start",
    "experiment": "start",
    "ingest": "start",
    "batch_inference": "start",
    "reproduce": "start",
    "monitor": "start",
}
"""The action of each flow that needs an order where names must be proved.

`notify` and `auto_retrain` are not here: they do only what the ledger already says.
"""

ALERT_ORDER = "alert:"
"""An order that names the alert by which auto-retrain starts a run, after its key."""
AUTO_RETRAIN_PARAMETERS = frozenset({"model", "environment", "requested_by", "trigger_reason", "order"})
"""The parameters that auto-retrain sets; all others have the defaults of `retrain`."""
_AUTO_RETRAIN_NAME = re.compile(r"automation: model\.[a-z.]+")
"""What auto-retrain names as the requester: the event that it answers."""
SCHEDULE = "schedule"
"""The name of whoever starts an automatic run, whatever its parameters say."""
RETRAIN_STARTED = "retraining.started"
"""The event by which auto-retrain records that it starts a run."""


def authenticated_way(env: Environment) -> str:
    """Return how a person does an act so that their name is proved."""
    if address := env.gateway.address:
        return f"Sign in at {address}/actions, or use a personal token there (docs/actions.md)."
    return "Sign in at the gateway's page /actions, or use a personal token there (docs/actions.md)."


def refuses_unproved(env: Environment, act: Act) -> bool:
    """Return whether an act is refused when nobody proved who does it.

    Where the policy of the action does not say, it is if that holds for any model that the act touches.
    """
    if (choice := env.actions.policy(act.action).unauthenticated) is not None:
        return choice == "refuse"
    touched = [act.model, *act.also, *(() if act.model else env.approval.models)]
    return any(environment_policy(env, each).require_authentication for each in touched)


def check_policy(env: Environment, act: Act, actor: Actor) -> None:
    """Refuse an act that the environment's policy does not allow this person, recording nothing."""
    check_permitted(
        act, actor, env.actions.policy(act.action), environment_people(env),
        strict=refuses_unproved(env, act), way=authenticated_way(env),
    )  # fmt: skip


def sign_order(env: Environment, act: Act, actor: Actor, *, reason: str, channel: str, now: datetime) -> Actor:
    """Sign an order for an act and record it in the chain; return the actor with the order's id.

    A refused attempt is recorded, too.

    Raises:
        Refusal: the policy does not allow it, a text has control characters, or the clock went back.
        Rejected: no key on this machine signs decisions.
    """
    approvals = env.approvals()
    with record_refusals(env, "", act.action, actor.by, channel, now):
        check_policy(env, act, actor)
        name = check_person_name(actor.by, act.where)
        why = check_reason(reason, act.where) if reason else ""
        signer = env.signing.signer("decisions")
        check_clock(latest_signed_time(approvals.chain_entries()) or now, now)
        order = ActionOrder(
            act.action, act.environment, act.model, act.target, parameter_digests(act.parameters), name, why, channel,
            now, now + timedelta(minutes=env.actions.order_minutes), actor.authenticated,
            tuple(sorted(actor.roles)) if actor.authenticated else (),
        )  # fmt: skip
        entry = approvals.record_order(order, signer)
    return Actor(order.by, order.authenticated, order.roles, entry.hash)


def order_act(env: Environment, act: Act, actor: Actor, *, reason: str, channel: str, now: datetime) -> Actor:
    """Sign an order as `sign_order` does; on a machine without the key only check the policy."""
    if decision_signer(env) is not None:
        return sign_order(env, act, actor, reason=reason, channel=channel, now=now)
    check_policy(env, act, actor)
    return actor


def authorize(env: Environment, act: Act, *, order: str, by: str, used_by: str, now: datetime) -> Actor:
    """Return who does an act, after checking the order and the policy. A refused attempt is recorded.

    Args:
        env: the environment of the act.
        act: what is about to be done.
        order: the id of the order; "" for none.
        by: the name that was given without an order.
        used_by: who uses the order, such as the id of the flow run: only this one may use it again.
        now: the time, with a zone.

    Raises:
        Refusal: there is no such order, it is for another act, it was used or has expired, the chain is damaged, or
            the policy does not admit this person.
    """
    channel = "order" if order else "no order"
    with record_refusals(env, "", act.action, by, channel, now):
        if not order:
            actor = Actor(by)
            check_policy(env, act, actor)
            return actor
        if order.startswith(ALERT_ORDER):
            return _automation(env, act, order, by, used_by, now)
        signed, key = find_order(env, order), f"order:{order}"
        used = env.effects().effect(key)
        in_use = used is not None and (used.detail, used.state) == (used_by, "intent")
        check_order(signed, act, now, in_use=in_use and now < signed.expires + _longest_wait(env, act.model))
        actor = Actor(signed.by, signed.authenticated, signed.roles, order)
        check_policy(env, act, actor)
        _claim(env, act, key, used_by, now)
    return actor


def authorize_automatic(env: Environment, act: Act, root: Path = ROOT) -> Actor:
    """Return the schedule as the actor of a run that Prefect's scheduler created.

    Raises:
        Refusal: the policy does not allow it, or the run would remove something with other parameters than a deployment
            of the flow has in `prefect.yaml` below `root`. Whoever may edit a schedule chooses its parameters.
    """
    actor = Actor(SCHEDULE, person=False)
    check_policy(env, act, actor)
    if act.action == "clean_up" and not any(_has_parameters(act, each) for each in _declared_parameters(act, root)):
        remedy = f"Declare them in prefect.yaml, or start the run in your own name. {authenticated_way(env)}"
        raise Refusal("no deployment in prefect.yaml has these parameters", where=act.where, remedy=remedy)
    return actor


def _declared_parameters(act: Act, root: Path) -> list[Mapping[str, Any]]:
    """Return the parameters of each deployment of the act's flow."""
    path = root / "prefect.yaml"
    declared = yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"] if path.is_file() else []
    return [each.get("parameters") or {} for each in declared if each["entrypoint"].rpartition(":")[2] == act.target]


def _has_parameters(act: Act, declared: Mapping[str, Any]) -> bool:
    given = {name: value for name, value in act.parameters.items() if name in declared or name not in act.defaults}
    return parameter_digests(given) == parameter_digests(declared)


def run_user(run_id: object) -> str:
    """Return the name under which a flow run uses its order."""
    return f"flow run {run_id}"


def finish_order(env: Environment, order: str, used_by: str, now: datetime) -> None:
    """Record that whoever used an order has ended: it permits nothing any more. The order of another run stays."""
    effects, key = env.effects(), f"order:{order}"
    used = effects.effect(key)
    if used is not None and used.detail == used_by:
        effects.finish(key, "ended", now)


def _longest_wait(env: Environment, model: str) -> timedelta:
    """Return for how long a run may be suspended: until the request expires, and a day for what comes before it."""
    return timedelta(days=current_approval_policy(env, model).expires_days + 1)


def find_order(env: Environment, order_id: str) -> ActionOrder:
    """Return an order of the verified chain. Raises Refusal when there is none, or the chain is damaged."""
    for link in verified_chain(env):
        if link.hash == order_id and isinstance(record := record_from_entry(link), ActionOrder):
            return record
    remedy = f"{authenticated_way(env)} Orders are in the ledger of one environment."
    raise Refusal("there is no such order", where="order", value=order_id[:80], remedy=remedy)


def proved_orders(env: Environment) -> dict[str, ActionOrder]:
    """Return the orders of people who were authenticated, by the order's id; none when the chain is damaged."""
    try:
        links = [link for link in verified_chain(env) if link.kind == "action"]
    except Refusal:
        return {}
    orders = {link.hash: record_from_entry(link) for link in links}
    return {key: each for key, each in orders.items() if isinstance(each, ActionOrder) and each.authenticated}


def _automation(env: Environment, act: Act, order: str, by: str, used_by: str, now: datetime) -> Actor:
    """Return auto-retrain as the actor, if the ledger says that it starts a run of this model for this alert."""
    if act.target != "retrain":
        raise Refusal("auto-retrain starts no such flow", where=act.where, value=act.target)
    key = order.removeprefix(ALERT_ORDER)
    cause = "/".join((act.model, env.name, RETRAIN_STARTED))
    if not any(each.key == f"{RETRAIN_STARTED}:{key}" for each in env.outbox().signals(cause)):
        raise Refusal("auto-retrain has not started a run for this alert", where=act.where, value=key[:200])
    if set_by_hand := set(act.parameters) - act.defaults - AUTO_RETRAIN_PARAMETERS:
        raise Refusal("auto-retrain sets no such parameter", where=act.where, value=min(set_by_hand))
    if not _AUTO_RETRAIN_NAME.fullmatch(by):
        raise Refusal("auto-retrain does not act under this name", where=act.where, value=by[:200])
    actor = Actor(by, person=False)
    check_policy(env, act, actor)
    _claim(env, act, f"order:{order}", used_by, now)
    return actor


def _claim(env: Environment, act: Act, key: str, used_by: str, now: datetime) -> None:
    """Mark an order as used. Of two runs with one order, one goes on, and none after that one has ended."""
    claimed = env.effects().intend(key, used_by, now)
    if claimed.detail != used_by or claimed.state == "done":
        remedy = "Each order permits one act: order it again."
        raise Refusal("the order was used already", where=act.where, value=claimed.detail, remedy=remedy)

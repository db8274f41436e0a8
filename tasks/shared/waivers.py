"""Waivers: recorded decisions of people that failed gates do not hold a model, until a time."""

from collections.abc import Iterable
from datetime import datetime

from blocks.approvals.chain import read_entry
from blocks.environment import Environment
from blocks.records.approvals import ChainEntry, Waiver
from tasks.approval.rules.actions import Act, Actor
from tasks.approval.rules.approval import check_clock
from tasks.approval.rules.policy import check_waiver, covering_waivers
from tasks.shared.actions import check_policy
from tasks.shared.models import load_model
from tasks.shared.records import EvaluationResult
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import approval_policy, environment_people, latest_signed_time, record_refusals, verified_chain


def record_waiver(env: Environment, waiver: Waiver) -> ChainEntry:
    """Sign and record a waiver. A refused attempt is recorded, too.

    Raises:
        Refusal: this person may not waive, the reason is missing, a gate is unknown, or the end time is not allowed.
        Rejected: no key on this machine signs decisions.
    """
    spec, approvals = load_model(waiver.model).spec, env.approvals()
    with record_refusals(env, "", "waive", waiver.waived_by, waiver.channel, waiver.at):
        signer = env.signing.signer("decisions")
        check_clock(latest_signed_time(approvals.chain_entries()) or waiver.at, waiver.at)
        actor = Actor(waiver.waived_by, waiver.authenticated, waiver.roles)
        check_policy(env, Act("waive", env.name, waiver.model), actor)
        check_waiver(waiver, spec, environment_people(env), approval_policy(env, spec))
        return approvals.record_waiver(waiver, signer)


def all_gates_waived(
    env: Environment, spec: ModelSpec, evaluation_result: EvaluationResult, requested_by: str, now: datetime
) -> bool:
    """Return whether valid waivers cover every failed gate now."""
    return bool(evaluation_result.failed_gates) and bool(
        valid_waivers(env, spec, evaluation_result.failed_gates, requested_by, now)
    )


def valid_waivers(
    env: Environment, spec: ModelSpec, gates: Iterable[str], requested_by: str, now: datetime
) -> tuple[str, ...]:
    """Return the hashes of waivers that together cover all the gates now; empty when a gate is not covered.

    Under the four-eyes rule a waiver by the requester of the run does not count.

    Raises:
        Refusal: the record of decisions is damaged.
    """
    waivers = waivers_of(verified_chain(env), spec.name, env.name)
    policy, people = approval_policy(env, spec), environment_people(env)
    return covering_waivers(waivers, gates, requested_by=requested_by, people=people, policy=policy, now=now)


def check_waivers_valid(env: Environment, links: tuple[ChainEntry, ...], gates: tuple[str, ...], named: tuple[str, ...],
                 model: str, requested_by: str, now: datetime) -> None:  # fmt: skip
    """Refuse unless the waivers named in the evidence are valid now and cover every failed gate."""
    waivers = waivers_of((link for link in links if link.hash in named), model, env.name)
    policy, people = approval_policy(env, load_model(model).spec), environment_people(env)
    if not covering_waivers(waivers, gates, requested_by=requested_by, people=people, policy=policy, now=now):
        raise Refusal(
            "a gate failed, and no valid waiver covers it",
            where=model,
            value=", ".join(gates) or "a gate without a name",
            remedy="Retrain, or record a new waiver: python -m ratchet approvals waive.",
        )


def waivers_of(links: Iterable[ChainEntry], model: str, environment: str) -> dict[str, Waiver]:
    """Return the waivers of a model in an environment among the links, by the links' hashes."""
    waivers = {link.hash: read_entry(link) for link in links if link.kind == "waiver"}
    return {
        name: record
        for name, record in waivers.items()
        if isinstance(record, Waiver) and (record.model, record.environment) == (model, environment)
    }

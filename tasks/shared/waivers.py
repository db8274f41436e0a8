"""A waiver: a person's recorded decision that a failed gate of a model does not hold it back, until a time."""

from collections.abc import Iterable
from datetime import datetime

from blocks.approvals.base import Link, Waiver
from blocks.approvals.chain import record_of
from blocks.environment import Environment, open_environment
from tasks.approval.rules.approval import check_clock
from tasks.approval.rules.waivers import check_waiver, covering_waivers
from tasks.shared.models import load_model
from tasks.shared.records import EvaluationResult
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import approval_policy, environment_people, latest_signed_time, record_refusals, verified_chain


def record_waiver(env: Environment, waiver: Waiver) -> Link:
    """Sign and record a waiver. A refused attempt is recorded, too.

    Raises:
        Refusal: this person may not waive, gave no reason or no such gate, or the waiver has no end in sight.
        Rejected: no key on this machine signs decisions.
    """
    spec, approvals = load_model(waiver.model).spec, env.approvals()
    with record_refusals(env, "", "waive", waiver.waived_by, waiver.channel, waiver.at):
        signer = env.signing.signer("decisions")
        check_clock(latest_signed_time(approvals.links()) or waiver.at, waiver.at)
        check_waiver(waiver, spec.evaluation, environment_people(env), approval_policy(env, spec))
        return approvals.waive(waiver, signer)


def all_gates_waived(
    model: str, evaluation_result: EvaluationResult, requested_by: str, environment: str, now: datetime
) -> bool:
    """Whether waivers stand now for every gate that did not open."""
    env = open_environment(environment)
    return bool(evaluation_result.failed_gates) and bool(
        valid_waivers(env, model, evaluation_result.failed_gates, requested_by, now)
    )


def valid_waivers(
    env: Environment, model: str, gates: Iterable[str], requested_by: str, now: datetime
) -> tuple[str, ...]:
    """Return the hashes of waivers that together open all the gates now; none when one stays shut.

    A waiver by who asked for the run does not count where it takes four eyes.

    Raises:
        Refusal: the record of decisions is damaged.
    """
    waivers = waivers_of(verified_chain(env), model, env.name)
    policy, people = approval_policy(env, load_model(model).spec), environment_people(env)
    return covering_waivers(waivers, gates, requested_by=requested_by, people=people, policy=policy, now=now)


def check_waivers_valid(env: Environment, links: tuple[Link, ...], gates: tuple[str, ...], named: tuple[str, ...],
                 model: str, requested_by: str, now: datetime) -> None:  # fmt: skip
    """Refuse unless the waivers that the evidence names stand now, and open every gate that did not open."""
    waivers = waivers_of((link for link in links if link.hash in named), model, env.name)
    policy, people = approval_policy(env, load_model(model).spec), environment_people(env)
    if not covering_waivers(waivers, gates, requested_by=requested_by, people=people, policy=policy, now=now):
        raise Refusal(
            "a gate did not open, and no waiver that stands opens it",
            where=model,
            value=", ".join(gates) or "a gate without a name",
            remedy="Retrain, or waive it anew: python -m ratchet approvals waive.",
        )


def waivers_of(links: Iterable[Link], model: str, environment: str) -> dict[str, Waiver]:
    """Return the waivers of a model in an environment among the links, by the links' hashes."""
    found = {link.hash: record_of(link) for link in links if link.kind == "waiver"}
    return {
        name: record
        for name, record in found.items()
        if isinstance(record, Waiver) and (record.model, record.environment) == (model, environment)
    }

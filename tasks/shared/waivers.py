"""Waivers: recorded decisions of people that failed gates do not hold a model, until a time."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from blocks.approvals.chain import read_entry
from blocks.environment import Environment
from blocks.records.approvals import ApprovalRequest, ChainEntry, Waiver
from tasks.approval.rules.actions import Act, Actor
from tasks.approval.rules.approval import check_clock
from tasks.approval.rules.policy import ApprovalRequirements, RunOrigin, check_waiver, covering_waivers
from tasks.shared.actions import check_policy
from tasks.shared.code import unapproved_authors
from tasks.shared.models import load_model
from tasks.shared.records import EvaluationResult, TrainingResult
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import (
    approval_policy,
    current_approval_policy,
    environment_people,
    latest_signed_time,
    record_refusals,
    signed_version_facts,
    verified_chain,
)


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
        _check_permitted(env, waiver)
        check_waiver(waiver, spec, environment_people(env), approval_policy(env, spec))
        return approvals.record_waiver(waiver, signer)


def valid_waivers(
    env: Environment,
    spec: ModelSpec,
    training_result: TrainingResult,
    evaluation_result: EvaluationResult,
    requester: Actor,
    now: datetime,
) -> tuple[str, ...]:
    """Return the hashes of waivers that together cover all the failed gates of a run now; empty when one is not.

    Under the four-eyes rule a waiver by the requester of the run or by an author of its code does not count.

    Raises:
        Refusal: the record of decisions is damaged.
    """
    waivers, gates = waivers_of(verified_chain(env), spec.name, env.name), evaluation_result.failed_gates
    if not waivers or not gates:
        return ()
    champion, commit = evaluation_result.champion_version, training_result.commit
    authors = challenger_authors(env, spec.name, champion, commit, training_result.patch_digest)
    origin = RunOrigin(requester.by, requester.authenticated, authors)
    return _covering(env, waivers, gates, origin, approval_policy(env, spec), now)


def check_waivers_valid(env: Environment, links: tuple[ChainEntry, ...], gates: tuple[str, ...],
                        named: tuple[str, ...], request: ApprovalRequest, now: datetime) -> None:  # fmt: skip
    """Refuse unless the waivers named in the evidence are valid now and cover every failed gate."""
    waivers = waivers_of((link for link in links if link.hash in named), request.model, env.name)
    origin = RunOrigin(request.requested_by, request.requester_authenticated, request.authors)
    policy = current_approval_policy(env, request.model)
    policy = replace(policy, four_eyes=policy.four_eyes or request.four_eyes)
    if not _covering(env, waivers, gates, origin, policy, now):
        raise Refusal(
            "a gate failed, and no valid waiver covers it",
            where=request.model,
            value=", ".join(gates) or "a gate without a name",
            remedy="Retrain, or record a new waiver: python -m ratchet approvals waive.",
        )


def challenger_authors(env: Environment, model: str, champion: str, commit: str, patch_digest: str) -> tuple[str, ...]:
    """Return the authors of a challenger's code since the champion's ("": none) approved commit."""
    since = signed_version_facts(env, model, champion).commit if champion else ""
    return unapproved_authors(model, since, commit=commit, has_patch=bool(patch_digest))


def _covering(
    env: Environment,
    waivers: Mapping[str, Waiver],
    gates: Iterable[str],
    origin: RunOrigin,
    policy: ApprovalRequirements,
    now: datetime,
) -> tuple[str, ...]:
    """Return the waivers that cover the gates, of people whom the environment's policy lets waive today."""
    permitted = {name: waiver for name, waiver in waivers.items() if _is_permitted(env, waiver)}
    return covering_waivers(permitted, gates, origin=origin, people=environment_people(env), policy=policy, now=now)


def _check_permitted(env: Environment, waiver: Waiver) -> None:
    actor = Actor(waiver.waived_by, waiver.authenticated, waiver.roles)
    check_policy(env, Act("waive", env.name, waiver.model), actor)


def _is_permitted(env: Environment, waiver: Waiver) -> bool:
    with suppress(Refusal):
        _check_permitted(env, waiver)
        return True
    return False


def waivers_of(links: Iterable[ChainEntry], model: str, environment: str) -> dict[str, Waiver]:
    """Return the waivers of a model in an environment among the links, by the links' hashes."""
    waivers = {link.hash: read_entry(link) for link in links if link.kind == "waiver"}
    return {
        name: record
        for name, record in waivers.items()
        if isinstance(record, Waiver) and (record.model, record.environment) == (model, environment)
    }

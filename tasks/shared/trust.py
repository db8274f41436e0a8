"""Trust of an environment: approval policy, people, verified decisions, and the record of refused attempts."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

from blocks.approvals.anchor import read_anchored_head
from blocks.approvals.base import final_decision
from blocks.approvals.chain import decisions_of, find_first_fault, find_head_fault, read_entry, request_digest
from blocks.common.errors import Conflict, Corrupt, PortError
from blocks.environment import Environment
from blocks.records.approvals import ApprovalRequest, ChainEntry, Decision, ErasureRecord, RefusedAttempt, RowSeal
from runtime.keys import Signer
from tasks.approval.rules.evidence import Evidence, parse_evidence
from tasks.approval.rules.people import People
from tasks.approval.rules.policy import ApprovalRequirements, stricter_requirements
from tasks.shared.models import load_model, model_names
from tasks.shared.rules.model.namespaces import base_name
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal


def environment_people(env: Environment) -> People:
    """Return the people of an environment with their roles."""
    return People(env.people)


def environment_policy(env: Environment, model: str) -> ApprovalRequirements:
    """Return what the environment requires of a model's approvals. A namespace cannot lower the model's rules."""
    rule = env.required_approval(model if model in env.approval.models else base_name(model))
    return ApprovalRequirements(**{name: getattr(rule, name) for name in ApprovalRequirements.__dataclass_fields__})


def approval_policy(env: Environment, spec: ModelSpec) -> ApprovalRequirements:
    """Return the requirements of an approval of this model in this environment."""
    return stricter_requirements(ApprovalRequirements(**spec.approval.model_dump()), environment_policy(env, spec.name))


def current_approval_policy(env: Environment, model: str) -> ApprovalRequirements:
    """Return the requirements of an approval by the current model.yaml.

    For a model that is no longer in the checkout only the environment's rules apply.
    """
    exists = base_name(model) in model_names()
    return approval_policy(env, load_model(model).spec) if exists else environment_policy(env, model)


def verified_chain(env: Environment) -> tuple[ChainEntry, ...]:
    """Return the whole chain, each link verified against the pinned keys of its kind.

    Raises:
        Refusal: no key is pinned; or a link was changed, is missing, or has another signature.
        Corrupt: a link cannot be read.
    """
    trust = env.signing.chain_trust()
    if not trust.keys["decisions"]:
        raise Refusal(
            "no key is pinned whose decisions count",
            where=f"environment {env.name}, signing.trusted_decision_keys",
            remedy="Give the public key that python -m ratchet audit key prints.",
        )
    heads = list(map(read_anchored_head, trust.heads))  # before the links: another process may add one meanwhile
    links = env.approvals().chain_entries()
    faults = [find_first_fault(links, trust.keys), *(find_head_fault(links, head) for head in heads)]
    if (fault := next(filter(None, faults), None)) is not None:
        raise Refusal(
            f"the record of decisions is damaged: {fault.problem}",
            where=f"ledger, decision {fault.number}",
            remedy="Deploy nothing; see python -m ratchet audit verify, and restore the database.",
        )
    return links


def verified_decisions(links: tuple[ChainEntry, ...], request: ApprovalRequest) -> tuple[Decision, ...]:
    """Return the decisions of a request among verified links, made over the request as it stands now.

    Raises:
        Refusal: the request was changed after it was decided.
    """
    decisions = decisions_of(link for link in links if link.request_id == request.id)
    now = request_digest(request)
    if any(decision.request_digest != now for decision in decisions):
        raise Refusal(
            "the request was changed after it was decided",
            where=f"approval request {request.id}",
            remedy="Retrain, and approve anew.",
        )
    return decisions


def signed_version_facts(env: Environment, model: str, version: str) -> Evidence:
    """Return what was approved about a version that is or was deployed: commit, data, holdout rule, cut-off.

    It comes from the request that people approved, by their verified decisions: a worker's key, which seals rows, is
    not enough. The registry's tags are for people: where one says otherwise, somebody has changed it.

    Raises:
        Refusal: the ledger has no approved evidence of the version, a tag of the registry differs from it, or the
            record of decisions is damaged.
        Corrupt: a row of the ledger was changed.
    """
    lines, where = env.effects().deployments(model, env.name), f"{model} version {version}"
    line = next((each for each in lines if (each.version, each.status) == (version, "serving")), None)
    request = env.approvals().get_request(line.request_id) if line else None
    if request is None or not _is_approved(env, request, model, version):
        raise Refusal(
            "the ledger has no approved evidence of that version", where=where, remedy="Retrain, or roll back."
        )
    facts, found = parse_evidence(request.evidence), env.tracking().version(model, version)
    approved = {"commit": facts.commit, "tier": facts.tier, "snapshot": facts.as_of, "data_digest": facts.data_digest}
    if facts.holdout_rule is not None:  # evidence of earlier releases does not have these
        approved |= {
            "holdout": facts.holdout_rule,
            "trained_until": facts.trained_until or "",
            "cut_off": facts.cut_off or "",
        }
    for name, value in approved.items():
        if found is not None and (recorded := found.tags.get(f"ratchet.{name}", value)) != value:
            raise Refusal(
                "the registry says otherwise about the version than its approved evidence",
                where=f"{where}, tag ratchet.{name}",
                value=recorded,
                remedy=f"The approved value is {value or 'none'}: restore the tag.",
            )
    return facts


def _is_approved(env: Environment, request: ApprovalRequest, model: str, version: str) -> bool:
    """Whether people approved this version by this request, as their verified decisions say."""
    end = final_decision(verified_decisions(verified_chain(env), request), request.approvals)
    same = (request.model, request.environment, request.version) == (model, env.name, version)
    return same and end is not None and end.approved and end.digest == request.digest


def latest_signed_time(links: tuple[ChainEntry, ...]) -> datetime | None:
    """Return the newest time of a link that only the key of decisions signs.

    An unsigned row, or one of a worker, with a future time would block all later decisions.
    """
    records = (read_entry(link) for link in links if link.key_id)
    return max((record.at for record in records if not isinstance(record, RowSeal | ErasureRecord)), default=None)


def decision_signer(env: Environment) -> Signer | None:
    """Return the signer of decisions on this machine; None when it has no key."""
    with suppress(PortError):
        return env.signing.signer("decisions")
    return None


@contextmanager
def record_refusals(
    env: Environment, request_id: str, action: str, attempted_by: str, channel: str, now: datetime
) -> Iterator[None]:
    """Record a refusal that the block raises in the ledger, and raise it again."""
    try:
        yield
    except (Refusal, Conflict, Corrupt) as refusal:
        _record_refusal(env, RefusedAttempt(request_id, action, attempted_by, channel, str(refusal), now))
        raise


def _record_refusal(env: Environment, attempt: RefusedAttempt) -> None:
    """Record a refused attempt, unsigned when this machine has no key or signing fails."""
    approvals, signer = env.approvals(), decision_signer(env)
    for each in dict.fromkeys((signer, None)):
        try:
            approvals.record_refusal(attempt, each)
            return
        except PortError as problem:
            logging.getLogger("ratchet.trust").error("a refusal could not be recorded: %s", problem)

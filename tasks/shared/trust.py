"""Trust of an environment: approval policy, people, verified decisions, and the record of refused attempts."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from blocks.approvals.anchor import read_anchored_head
from blocks.approvals.chain import decisions_of, find_first_fault, record_from_entry, request_digest
from blocks.common.errors import Conflict, Corrupt, PortError
from blocks.environment import Environment
from blocks.records.approvals import ApprovalRequest, ChainEntry, Decision, RefusedAttempt
from runtime.keys import Signer
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
    """Return the whole chain of decisions, each link verified against the pinned keys.

    Raises:
        Refusal: no key is pinned; or a link was changed, is missing, or has another signature.
    """
    keys, links = env.signing.trusted_keys("decisions"), env.approvals().chain_entries()
    if not keys:
        raise Refusal(
            "no key is pinned whose decisions count",
            where=f"environment {env.name}, signing.trusted_decision_keys",
            remedy="Give the public key that python -m ratchet audit key prints.",
        )
    head = read_anchored_head(Path(env.signing.decisions_head_file)) if env.signing.decisions_head_file else None
    if (fault := find_first_fault(links, keys, head=head)) is not None:
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


def latest_signed_time(links: tuple[ChainEntry, ...]) -> datetime | None:
    """Return the newest time of a signed link: an unsigned row with a future time would block all later decisions."""
    return max((record_from_entry(link).at for link in links if link.key_id), default=None)


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

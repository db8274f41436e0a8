"""Who may decide what in an environment, whose signatures count, and the record of attempts that were refused."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from blocks.approvals.anchor import read_head
from blocks.approvals.base import ApprovalRequest, Decision, Link, RefusedAttempt
from blocks.approvals.chain import Head, decisions_of, first_fault, record_of, request_digest
from blocks.common.errors import Conflict, Corrupt, PortError
from blocks.environment import Environment
from runtime.keys import Signer
from tasks.approval.rules.people import People
from tasks.approval.rules.policy import ApprovalRequirements, stricter_requirements
from tasks.shared.models import load_model, model_names
from tasks.shared.rules.model.namespaces import base_name
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal


def environment_people(env: Environment) -> People:
    """Return who is who in an environment."""
    return People(env.people)


def environment_policy(env: Environment, model: str) -> ApprovalRequirements:
    """Return what the environment asks of the approvals of a model; in a namespace no less than of the shared one."""
    rule = env.required_approval(model if model in env.approval.models else base_name(model))
    return ApprovalRequirements(**{name: getattr(rule, name) for name in ApprovalRequirements.__dataclass_fields__})


def approval_policy(env: Environment, spec: ModelSpec) -> ApprovalRequirements:
    """Return what an approval of this model takes in this environment."""
    return stricter_requirements(ApprovalRequirements(**spec.approval.model_dump()), environment_policy(env, spec.name))


def current_approval_policy(env: Environment, model: str) -> ApprovalRequirements:
    """Return what an approval takes now, by model.yaml as it is now.

    A model that has left the checkout asks for what its requests did when they were made.
    """
    known = base_name(model) in model_names()
    return approval_policy(env, load_model(model).spec) if known else environment_policy(env, model)


def verified_chain(env: Environment) -> tuple[Link, ...]:
    """Return the whole chain of decisions, each link verified against the pinned keys.

    Raises:
        Refusal: no key is pinned; or a link was changed, is missing, or is signed by another key.
    """
    keys, links = env.signing.trusted_keys("decisions"), env.approvals().links()
    if not keys:
        raise Refusal(
            "no key is pinned whose decisions count",
            where=f"environment {env.name}, signing.decisions_trusted",
            remedy="Give the public key that python -m ratchet audit key prints.",
        )
    if (fault := first_fault(links, keys, head=_anchored_head(env))) is not None:
        raise Refusal(
            f"the record of decisions is damaged: {fault.problem}",
            where=f"ledger, decision {fault.number}",
            remedy="Deploy nothing; see python -m ratchet audit verify, and restore the database.",
        )
    return links


def verified_decisions(links: tuple[Link, ...], request: ApprovalRequest) -> tuple[Decision, ...]:
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


def latest_signed_time(links: tuple[Link, ...]) -> datetime | None:
    """Return the newest time in the chain that somebody signed: others could stop every clock with one row."""
    return max((record_of(link).at for link in links if link.key_id), default=None)


def decision_signer(env: Environment) -> Signer | None:
    """Return who signs decisions on this machine; None when nobody does."""
    with suppress(PortError):
        return env.signing.signer("decisions")
    return None


@contextmanager
def record_refusals(
    env: Environment, request_id: str, action: str, attempted_by: str, channel: str, now: datetime
) -> Iterator[None]:
    """Write into the ledger what is refused in the block, and let the refusal go on."""
    try:
        yield
    except (Refusal, Conflict, Corrupt) as no:
        _record_refusal(env, RefusedAttempt(request_id, action, attempted_by, channel, str(no), now))
        raise


def _record_refusal(env: Environment, attempt: RefusedAttempt) -> None:
    """Record a refused attempt; unsigned where nobody signs here, or where the signer misses rows."""
    approvals, signer = env.approvals(), decision_signer(env)
    for by in dict.fromkeys((signer, None)):
        try:
            approvals.refuse(attempt, by)
            return
        except PortError as problem:
            logging.getLogger("ratchet.trust").error("a refusal could not be recorded: %s", problem)


def _anchored_head(env: Environment) -> Head | None:
    """Return the anchored head, where this machine keeps it."""
    return read_head(Path(env.signing.decisions_head_file)) if env.signing.decisions_head_file else None

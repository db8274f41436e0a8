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
from tasks.approval.rules.policy import Policy, stricter
from tasks.shared.models import load_model, model_names
from tasks.shared.rules.model.namespaces import base_of
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal


def people_of(world: Environment) -> People:
    """Return who is who in an environment."""
    return People(world.people)


def environment_policy(world: Environment, model: str) -> Policy:
    """Return what the environment asks of the approvals of a model; in a namespace no less than of the shared one."""
    rule = world.approval_rules(model if model in world.approval.models else base_of(model))
    return Policy(**{name: getattr(rule, name) for name in Policy.__dataclass_fields__})


def policy_of(world: Environment, spec: ModelSpec) -> Policy:
    """Return what an approval of this model takes in this environment."""
    return stricter(Policy(**spec.approval.model_dump()), environment_policy(world, spec.name))


def policy_now(world: Environment, model: str) -> Policy:
    """Return what an approval takes now, by model.yaml as it is now.

    A model that has left the checkout asks for what its requests did when they were made.
    """
    known = base_of(model) in model_names()
    return policy_of(world, load_model(model).spec) if known else environment_policy(world, model)


def sound_chain(world: Environment) -> tuple[Link, ...]:
    """Return the whole chain of decisions, each link verified against the pinned keys.

    Raises:
        Refusal: no key is pinned; or a link was changed, is missing, or is signed by another key.
    """
    keys, links = world.signing.keys("decisions"), world.approvals().links()
    if not keys:
        raise Refusal(
            "no key is pinned whose decisions count",
            where=f"environment {world.name}, signing.decisions_trusted",
            remedy="Give the public key that python -m ratchet audit key prints.",
        )
    if (fault := first_fault(links, keys, head=_head(world))) is not None:
        raise Refusal(
            f"the record of decisions is damaged: {fault.problem}",
            where=f"ledger, decision {fault.number}",
            remedy="Deploy nothing; see python -m ratchet audit verify, and restore the database.",
        )
    return links


def sound_decisions(links: tuple[Link, ...], request: ApprovalRequest) -> tuple[Decision, ...]:
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


def latest(links: tuple[Link, ...]) -> datetime | None:
    """Return the newest time in the chain that somebody signed: others could stop every clock with one row."""
    return max((record_of(link).at for link in links if link.key_id), default=None)


def decisions_signer(world: Environment) -> Signer | None:
    """Return who signs decisions on this machine; None when nobody does."""
    with suppress(PortError):
        return world.signing.signer("decisions")
    return None


@contextmanager
def refusals_recorded(
    world: Environment, request_id: str, action: str, by: str, channel: str, now: datetime
) -> Iterator[None]:
    """Write into the ledger what is refused in the block, and let the refusal go on."""
    try:
        yield
    except (Refusal, Conflict, Corrupt) as no:
        _write_down(world, RefusedAttempt(request_id, action, by, channel, str(no), now))
        raise


def _write_down(world: Environment, attempt: RefusedAttempt) -> None:
    """Record a refused attempt; unsigned where nobody signs here, or where the signer misses rows."""
    approvals, signer = world.approvals(), decisions_signer(world)
    for by in dict.fromkeys((signer, None)):
        try:
            approvals.refuse(attempt, by)
            return
        except PortError as problem:
            logging.getLogger("ratchet.trust").error("a refusal could not be recorded: %s", problem)


def _head(world: Environment) -> Head | None:
    """Return the anchored head, where this machine keeps it."""
    return read_head(Path(world.signing.decisions_head)) if world.signing.decisions_head else None

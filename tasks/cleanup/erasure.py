"""Erasure: one entity's rows leave every snapshot, log and quarantine of a model, and every copy that was made of them.

The requester, the reason, and the changed digests are signed into the ledger, before and after; the key is not.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal
from uuid import uuid4

from blocks.environment import Environment
from blocks.lake.base import ErasedRows
from blocks.records.approvals import ErasureRecord
from runtime.keys import Signer
from tasks.approval.rules.actions import Act, Actor
from tasks.approval.rules.names import check_person_name, check_reason
from tasks.cleanup.garbage import ArtifactOwners
from tasks.cleanup.rules.erasure import erasure_places, key_forms, related_models
from tasks.shared.actions import authorize
from tasks.shared.models import load_model, model_names, model_with_namespaces
from tasks.shared.rules.model.namespaces import base_name
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import decision_signer

COPY_KINDS = ("tier", "attempt", "training-input", "batch-inference")
"""The kinds of artifacts that hold rows of the lake and can be made again (`blocks.records.collectable`)."""


@dataclass(frozen=True)
class ErasureResult:
    """What was erased from each data set, how many copies were removed, and what is left for a person to do."""

    changes: tuple[ErasedRows, ...]
    copies: int = 0
    left: tuple[str, ...] = ()


def models_of_same_entities(env: Environment, model: str) -> tuple[ModelSpec, ...]:
    """Return the model and those whose data are about the same entities, in all their namespaces; the model first."""
    specs = {name: load_model(name).spec for name in model_names()}
    base = specs.pop(base_name(model))
    return tuple(
        each.model_copy(update={"name": name})
        for each in related_models(base, specs.values())
        for name in model_with_namespaces(env, each.name)
    )


def erase_entity(
    env: Environment,
    specs: Sequence[ModelSpec],
    key: str,
    owners: ArtifactOwners,
    ingest_log: Callable[[ModelSpec], object],
    *,
    actor: Actor,
    reason: str,
    now: datetime,
    dry_run: bool = False,
) -> ErasureResult:
    """Erase the rows of one entity, by its key as text, from the data of models (see `models_of_same_entities`).

    `ingest_log` moves the log that waits at a model's endpoint into the lake. Repeating an erasure finishes one that
    was interrupted. With `dry_run` nothing is written, and rows are only counted.

    Raises:
        Refusal: key, requester or reason is empty or has control characters, or the reason contains a form of the key,
            which would stay; or the key is no text.
        Rejected: no key on this machine signs the record of an erasure.
    """
    _check_request(key, actor.by, reason)
    requested_by = actor.shown
    lake, model = env.lake(), specs[0].name
    notes = {"requested_by": requested_by, "reason": reason}
    if not dry_run:
        _record(env, model, "requested", actor, reason, now)
        for spec in specs:  # what waits at an endpoint would be ingested later
            ingest_log(spec)
    changes = tuple(
        lake.erase(place.dataset, place.columns, partial(place.selects, key=key), at=now, notes=notes, dry_run=dry_run)
        for place in erasure_places(specs, lake.datasets())
    )
    if dry_run:
        return ErasureResult(changes, left=tuple(_left(specs)))
    copies, kept = _remove_copies(env, owners, [spec.name for spec in specs])
    _record(env, model, "done", actor, reason, now, changes)
    return ErasureResult(changes, copies, (*_left(specs), *kept, *_unpublished(changes)))


def authorize_erasure(
    env: Environment, specs: Sequence[ModelSpec], key: str, order: str, by: str, reason: str, now: datetime
) -> Actor:
    """Return who erases, after checking the order and the policy. An order permits one erasure, whoever it is about.

    The order does not name the entity: the chain keeps no key. What would stop the erasure is found before the order
    is used up. Names must be proved where that holds for any of the models.

    Raises:
        Refusal: the order or the policy does not permit it, or `erase_entity` would refuse it.
        Rejected: no key on this machine signs the record of an erasure, or the use of the order.
    """
    _check_request(key, by, reason)
    _signer(env)
    act = Act("erase", env.name, specs[0].name, also=tuple(each.name for each in specs[1:]))
    return authorize(env, act, order=order, by=by, used_by=f"erasure {uuid4()}", now=now)


def _signer(env: Environment) -> Signer:
    """Return the signer of an erasure's record: of decisions, or on a worker's machine of records. Raises Rejected."""
    return decision_signer(env) or env.signing.signer("records")


def _check_request(key: str, requested_by: str, reason: str) -> None:
    if not key.strip():
        raise Refusal("the key is empty", where="erase", remedy="Give it: it is not recorded.")
    check_person_name(requested_by, "erase, requested_by")
    check_reason(reason, "erase, reason")
    if any(form in text for form in key_forms(key) for text in (reason, requested_by)):
        remedy = "Leave it out: the record of the erasure stays for good."
        raise Refusal("the reason or the requester contains the key of the entity", where="erase", remedy=remedy)


def _record(
    env: Environment,
    model: str,
    status: Literal["requested", "done"],
    actor: Actor,
    reason: str,
    now: datetime,
    changes: tuple[ErasedRows, ...] = (),
) -> None:
    changed = tuple((each.dataset, each.rows, each.digest_before, each.digest_after) for each in changes if each.rows)
    channel = f"terminal, order {actor.order_id}" if actor.order_id else "terminal"
    record = ErasureRecord(model, env.name, status, actor.shown, reason, channel, now, changed)
    env.approvals().record_erasure(record, _signer(env))


def _remove_copies(env: Environment, owners: ArtifactOwners, names: list[str]) -> tuple[int, list[str]]:
    """Remove what can be made again from the lake; return how much, and what is in use and stays."""
    removed, kept = 0, list[str]()
    for owner in {id(owners[kind]): owners[kind] for kind in COPY_KINDS if kind in owners}.values():
        for found in owner.collectables(names):
            if found.key.partition(":")[0] not in COPY_KINDS:
                continue
            if found.keep_reason:
                kept.append(f"{found.description} may hold such rows: {found.keep_reason}; erase again when it ended")
                continue
            owner.delete_collectables(found.key)
            removed += 1
    for name in names:
        for folder in (env.scratch / "monitoring" / name).glob("*-*"):  # predicted holdouts; `runs` has reports alone
            shutil.rmtree(folder)
            removed += 1
    return removed, kept


def _left(specs: Sequence[ModelSpec]) -> Iterator[str]:
    """Yield what an erasure cannot reach."""
    for spec in specs:
        hidden = spec.data.entity in (*spec.inference_log.hash, *spec.inference_log.exclude)
        if hidden:
            yield f"rows of {spec.own_dataset('inference')}: model.yaml keeps the key out of the log, or hashes it"


def _unpublished(changes: Sequence[ErasedRows]) -> Iterator[str]:
    """Yield the Delta tables that still name files that the erasure deleted."""
    for each in changes:
        if each.problem:
            yield (
                f"the Delta table of {each.dataset} was not published anew ({each.problem}): other engines cannot read "
                "it; erase again, or run maintenance"
            )

"""Garbage collection: plan the removal of unreferenced artifacts and idle cloud resources, and carry it out."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from blocks.cloud_cleanup.base import CloudCleanup
from blocks.common.collectable import ArtifactOwner, ResultArtifacts, ScratchArtifacts
from blocks.common.errors import NotFound
from blocks.environment import Environment
from blocks.records.cloud import PaidJob
from blocks.tracking.base import Tracking
from tasks.approval.rules.history import champion_of
from tasks.cleanup.records import GarbageCollectionPlan, GarbageCollectionResult, PlannedRemoval
from tasks.cleanup.rules.cloud import (
    CloudAction,
    HourlyPriceLookup,
    IdleEndpointAction,
    expired_checkpoint_actions,
    idle_endpoint_actions,
    orphaned_job_actions,
)
from tasks.cleanup.rules.garbage import MIN_GRACE_PERIOD, plan_removal, protected_model_keys
from tasks.shared.cost import read_prices
from tasks.shared.rules.cost.prices import InstanceUse, hourly_price
from tasks.shared.rules.refusal import Refusal

ArtifactOwners = Mapping[str, ArtifactOwner]


def artifact_owners(env: Environment, results: ArtifactOwner | None = None) -> ArtifactOwners:
    """Return the owner of each kind of collectable artifact."""
    tracking, scratch, trainer = env.tracking(), ScratchArtifacts(env.scratch), env.trainer()
    small = env.trainer_for(small=True) if env.has_small_trainer else None
    return {
        "version": tracking,
        "run": tracking,
        "model": tracking,
        "tier": scratch,
        "fetched-model": scratch,
        "attempt": small or trainer,
        "training-output": trainer,
        "training-input": trainer,
        **({"batch-inference": env.batch_inference()} if env.has_batch_inference else {}),
        "release": env.endpoint(),
        "result": results or ResultArtifacts(),
    }


def plan_removals(
    env: Environment,
    owners: ArtifactOwners,
    names: list[str],
    grace: timedelta,
    now: datetime,
    *,
    measure: bool = True,
) -> GarbageCollectionPlan:
    """Return the removable artifacts of these models, dependents first, and why the others are kept.

    Raises:
        Refusal: the deployed version is not in the registry. Its dependencies are unknown, so nothing is removed.
    """
    distinct_owners = {id(owner): owner for owner in owners.values()}.values()
    artifacts = [artifact for owner in distinct_owners for artifact in owner.collectables(names)]
    roots = {key: reason for name in names for key, reason in protected_keys(env, name).items()}
    plan = plan_removal(artifacts, roots, grace, now)
    by_key = {artifact.key: artifact for artifact in artifacts}
    return GarbageCollectionPlan(
        remove=tuple(
            PlannedRemoval(
                key=key,
                description=by_key[key].description,
                bytes=_owner_of_key(owners, key).size_bytes(key) if measure else 0,
            )
            for key in plan.remove
        ),
        kept_counts=dict(plan.kept_counts),
    )


def protected_keys(env: Environment, model: str) -> dict[str, str]:
    """Return the artifact keys of a model that must be kept, each with its reason, from the ledger and the registry."""
    tracking, waiting = env.tracking(), env.approvals().open_requests(model)
    lines = env.effects().deployments(model, env.name)
    serving = champion_of(lines)
    if serving and tracking.version(model, serving) is None:
        remedy = "Restore it, or roll back. No garbage is collected with an incomplete registry."
        raise Refusal("the deployed version is not in the registry", where=model, value=serving, remedy=remedy)
    running = [run for run in tracking.runs(model) if run.status == "RUNNING"]
    tiers = {f"tier:{model}/{run.tags.get('ratchet.tier_digest', '')[:32]}": "a run reads it" for run in running}
    return tiers | protected_model_keys(model, lines, waiting, tracking.versions(model))


def remove_planned(
    planned: GarbageCollectionPlan, current: GarbageCollectionPlan, owners: ArtifactOwners
) -> GarbageCollectionResult:
    """Remove the artifacts that are in both plans, in the order of the first."""
    allowed, removed, freed = {each.key for each in current.remove}, 0, 0
    for each in planned.remove:
        if each.key in allowed:
            _owner_of_key(owners, each.key).delete_collectables(each.key)
            removed, freed = removed + 1, freed + each.bytes
    return GarbageCollectionResult(removed=removed, bytes=freed, skipped=len(planned.remove) - removed)


def plan_cloud_actions(
    env: Environment, idle_hours: float, idle_action: IdleEndpointAction, days: float, now: datetime
) -> tuple[CloudAction, ...]:
    """Return the actions on orphaned jobs, idle endpoints and old checkpoints in the cloud account."""
    cloud, price = env.cloud_cleanup(), _hourly_price_lookup(env.cloud_cleanup(), now)
    jobs = tuple(with_flow_run(env.tracking(), job) for job in cloud.training_jobs(env.name))
    transforms = tuple(with_flow_run(env.tracking(), job) for job in cloud.batch_inference_jobs(env.name))
    endpoints = cloud.endpoints(env.name, now - timedelta(hours=idle_hours))
    expired = expired_checkpoint_actions(cloud.checkpoints(), {job.name for job in jobs}, days, now)
    orphaned = (
        *orphaned_job_actions(jobs, flow_run_has_ended, price, now),
        *orphaned_job_actions(transforms, flow_run_has_ended, price, now, "transform"),
    )
    return (*orphaned, *idle_endpoint_actions(endpoints, idle_hours, idle_action, price, now), *expired)


def run_cloud_actions(cloud: CloudCleanup, actions: tuple[CloudAction, ...], environment: str, now: datetime) -> None:
    """Carry out the planned actions, except those whose resource has changed since (an endpoint with new requests)."""
    running = {job.name for job in cloud.training_jobs(environment)}
    predicting = {job.name for job in cloud.batch_inference_jobs(environment)}
    checkpoints = {each.job: each for each in cloud.checkpoints()}
    expired = {
        action.name for action in expired_checkpoint_actions(checkpoints.values(), running, MIN_GRACE_PERIOD.days, now)
    }
    endpoints = {each.name: each for each in cloud.endpoints(environment, now - timedelta(hours=1))}
    for action in actions:
        endpoint = endpoints.get(action.name)
        is_idle = endpoint is not None and endpoint.requests == 0
        if action.action == "stop job" and action.name in running:
            cloud.stop_training_job(action.name)
        elif action.action == "stop transform" and action.name in predicting:
            cloud.stop_batch_inference_job(action.name)
        elif action.action == "delete endpoint" and is_idle:
            cloud.delete_endpoint(action.name)
        elif action.action == "scale down endpoint" and endpoint is not None and is_idle:
            cloud.scale_down(endpoint)
        elif action.action == "remove checkpoints" and action.name in expired:
            cloud.delete_checkpoints(checkpoints[action.name])


def with_flow_run(tracking: Tracking, job: PaidJob) -> PaidJob:
    """Return the job with the id of its flow run, taken from its tracked run when the job has none; "" if unknown."""
    if job.flow_run_id or not job.run_id:
        return job
    try:
        return replace(job, flow_run_id=tracking.run(job.run_id).tags.get("ratchet.flow_run", ""))
    except NotFound:
        return job


def flow_run_has_ended(flow_run: str) -> bool:
    """Return whether a flow run of this Prefect server has ended; False for an unknown one."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run)).state
    except (ObjectNotFound, ValueError):
        return False
    return state is not None and state.is_final()


def _hourly_price_lookup(cloud: CloudCleanup, now: datetime) -> HourlyPriceLookup:
    table = read_prices()

    def price(use: str, kind: str) -> float | None:
        try:
            return hourly_price(table, cast(InstanceUse, use), cloud.region, kind, now.date())
        except Refusal:
            return None

    return price


def _owner_of_key(owners: ArtifactOwners, key: str) -> ArtifactOwner:
    kind = key.partition(":")[0]
    if kind not in owners:
        raise NotFound(f"no component owns artifacts of the kind of {key!r}")
    return owners[kind]

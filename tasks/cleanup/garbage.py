"""Remove what nobody needs any more: planned from the roots, shown with its bytes, and removed when asked for."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from blocks.cloud.base import Cloud, PaidJob
from blocks.common.collectable import Keeper
from blocks.common.errors import NotFound
from blocks.common.results import Results
from blocks.common.scratch import Scratch
from blocks.environment import Environment
from blocks.tracking.base import Tracking
from tasks.approval.rules.history import champion
from tasks.cleanup.rules.garbage.cloud import Action, Idle, Price, expired, idle, orphans
from tasks.cleanup.rules.garbage.marks import MINIMUM_GRACE, plan
from tasks.cleanup.rules.garbage.roots import model_roots
from tasks.shared.cost import read_prices
from tasks.shared.records import Removal, SweepPlan, Swept
from tasks.shared.rules.cost.prices import Use, hourly_price
from tasks.shared.rules.refusal import Refusal

Keepers = Mapping[str, Keeper]


def keepers(world: Environment, results: Keeper | None = None) -> Keepers:
    """Return who keeps what, by the kinds of keys."""
    tracking, scratch, trainer = world.tracking(), Scratch(world.scratch), world.trainer()
    small = world.trainer_for(small=True) if world.has_small_trainer else None
    return {
        "version": tracking,
        "run": tracking,
        "model": tracking,
        "tier": scratch,
        "fetched": scratch,
        "attempt": small or trainer,
        "job": trainer,
        "input": trainer,
        **({"transform": world.transform()} if world.has_transform else {}),
        "release": world.endpoint(),
        "result": results or Results(),
    }


def make_plan(
    world: Environment, kept_by: Keepers, names: list[str], grace: timedelta, now: datetime, *, measure: bool = True
) -> SweepPlan:
    """Return what of these models may be removed, dependents first, and why the rest stays.

    Raises:
        Refusal: the version that serves is not in the registry: what it needs is not known, so nothing is removed.
    """
    each_once = {id(keeper): keeper for keeper in kept_by.values()}.values()
    things = [thing for keeper in each_once for thing in keeper.kept(names)]
    roots = {key: reason for name in names for key, reason in roots_of(world, name).items()}
    made = plan(things, roots, grace, now)
    by_key = {thing.key: thing for thing in things}
    return SweepPlan(
        remove=tuple(
            Removal(key=key, words=by_key[key].words, bytes=_keeper(kept_by, key).size(key) if measure else 0)
            for key in made.remove
        ),
        kept=dict(made.kept),
    )


def roots_of(world: Environment, model: str) -> dict[str, str]:
    """Return what must stay of a model, by the ledger and the registry.

    Raises:
        Refusal: the ledger says that a version serves which the registry does not know.
    """
    tracking, waiting = world.tracking(), world.approvals().open_requests(model)
    lines = world.effects().deployments(model, world.name)
    serving = champion(lines)
    if serving and tracking.version(model, serving) is None:
        remedy = "Restore it, or roll back; a registry that shows a part of what it holds is not swept."
        raise Refusal("the version that serves is not in the registry", where=model, value=serving, remedy=remedy)
    running = [run for run in tracking.runs(model) if run.status == "RUNNING"]
    tiers = {f"tier:{model}/{run.tags.get('ratchet.tier_digest', '')[:32]}": "a run reads it" for run in running}
    return tiers | model_roots(model, lines, waiting, tracking.versions(model))


def remove(planned: SweepPlan, still: SweepPlan, kept_by: Keepers) -> Swept:
    """Remove what is in both plans, in the order of the first."""
    allowed, removed, freed = {each.key for each in still.remove}, 0, 0
    for each in planned.remove:
        if each.key in allowed:
            _keeper(kept_by, each.key).discard(each.key)
            removed, freed = removed + 1, freed + each.bytes
    return Swept(removed=removed, bytes=freed, spared=len(planned.remove) - removed)


def cloud_plan(world: Environment, idle_hours: float, what: Idle, days: float, now: datetime) -> tuple[Action, ...]:
    """Return what to end in the cloud account."""
    cloud, price = world.cloud(), _price_of(world.cloud(), now)
    jobs = tuple(with_flow_run(world.tracking(), job) for job in cloud.jobs(world.name))
    transforms = tuple(with_flow_run(world.tracking(), job) for job in cloud.transforms(world.name))
    endpoints = cloud.endpoints(world.name, now - timedelta(hours=idle_hours))
    old = expired(cloud.checkpoints(), {job.name for job in jobs}, days, now)
    left = (*orphans(jobs, has_ended, price, now), *orphans(transforms, has_ended, price, now, "transform"))
    return (*left, *idle(endpoints, idle_hours, what, price, now), *old)


def end(cloud: Cloud, actions: tuple[Action, ...], environment: str, now: datetime) -> None:
    """Do what was planned; what changed meanwhile (an endpoint that is asked again) is left alone."""
    running = {job.name for job in cloud.jobs(environment)}
    predicting = {job.name for job in cloud.transforms(environment)}
    left = {each.job: each for each in cloud.checkpoints()}
    old = {action.name for action in expired(left.values(), running, MINIMUM_GRACE.days, now)}
    asked = {each.name: each for each in cloud.endpoints(environment, now - timedelta(hours=1))}
    for action in actions:
        endpoint = asked.get(action.name)
        quiet = endpoint is not None and endpoint.requests == 0
        if action.do == "stop job" and action.name in running:
            cloud.stop_job(action.name)
        elif action.do == "stop transform" and action.name in predicting:
            cloud.stop_transform(action.name)
        elif action.do == "delete endpoint" and quiet:
            cloud.delete_endpoint(action.name)
        elif action.do == "scale down endpoint" and endpoint is not None and quiet:
            cloud.scale_down(endpoint)
        elif action.do == "remove checkpoints" and action.name in old:
            cloud.remove_checkpoints(left[action.name])


def with_flow_run(tracking: Tracking, job: PaidJob) -> PaidJob:
    """Return the job with its flow run's id, from its tracked run when it does not say; "" when nobody knows."""
    if job.flow_run or not job.run:
        return job
    try:
        return replace(job, flow_run=tracking.run(job.run).tags.get("ratchet.flow_run", ""))
    except NotFound:
        return job


def has_ended(flow_run: str) -> bool:
    """Whether a flow run of this Prefect server has ended. One that it does not know is not said to have."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run)).state
    except (ObjectNotFound, ValueError):
        return False
    return state is not None and state.is_final()


def _price_of(cloud: Cloud, now: datetime) -> Price:
    table = read_prices()

    def price(use: str, kind: str) -> float | None:
        try:
            return hourly_price(table, cast(Use, use), cloud.region, kind, now.date())
        except Refusal:
            return None

    return price


def _keeper(kept_by: Keepers, key: str) -> Keeper:
    kind = key.partition(":")[0]
    if kind not in kept_by:
        raise NotFound(f"nobody keeps {key!r}")
    return kept_by[kind]

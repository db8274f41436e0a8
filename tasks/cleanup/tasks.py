"""Prefect tasks of garbage collection and of the lake's maintenance."""

from datetime import UTC, datetime, timedelta

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from blocks.environment import open_environment
from tasks.cleanup.garbage import cloud_plan, end, keepers, make_plan, remove
from tasks.cleanup.maintenance import data_sets, settled, tend
from tasks.cleanup.rules.garbage.cloud import Idle
from tasks.cleanup.rules.garbage.report import size_words, sweep_markdown
from tasks.cleanup.rules.maintenance.maintenance import Tended, report
from tasks.shared.models import load_model
from tasks.shared.namespaces import known_models
from tasks.shared.records import Maintained, SweepPlan, Swept
from tasks.shared.retries import STAGE


@task(name="plan sweep", **STAGE)
def plan_sweep(environment: str, grace_days: float, idle_hours: float, idle_endpoints: Idle) -> SweepPlan:
    """Return all that a sweep would do now, and show it as an artifact of the flow run."""
    world, now = open_environment(environment), datetime.now(UTC)
    planned = make_plan(world, keepers(world), known_models(world), timedelta(days=grace_days), now)
    actions = cloud_plan(world, idle_hours, idle_endpoints, grace_days, now) if world.has_cloud else ()
    planned = planned.model_copy(update={"actions": actions})
    shown = sweep_markdown(planned.remove, planned.kept, planned.actions, heading="What a sweep removes")
    create_markdown_artifact(key="sweep", markdown=shown, description="What goes, and what stays")
    get_run_logger().info("%s things may go, %s", len(planned.remove), size_words(planned.bytes))
    return planned


@task(name="carry out sweep", **STAGE)
def carry_out(planned: SweepPlan, environment: str, grace_days: float) -> Swept:
    """Remove what was planned, as far as nothing came to need it meanwhile; return what was done."""
    world, now = open_environment(environment), datetime.now(UTC)
    kept_by = keepers(world)
    still = make_plan(world, kept_by, known_models(world), timedelta(days=grace_days), now, measure=False)
    done = remove(planned, still, kept_by)
    if planned.actions:
        end(world.cloud(), planned.actions, environment, now)
    get_run_logger().info("%s things were removed, %s", done.removed, size_words(done.bytes))
    return done


@task(name="maintain", **STAGE)
def maintain_lake(model: str, dry_run: bool, older_than_hours: int, environment: str) -> Maintained:
    """Look after one model's data sets ("" for all of the lake's); see `flows.maintain` for the arguments.

    Raises:
        Corrupt: a data set is damaged, or a read does not return what it did; the others were looked after first.
    """
    lake = open_environment(environment).lake()
    there = lake.datasets()
    chosen = data_sets(load_model(model).spec, there) if model else there
    now, log = datetime.now(UTC), get_run_logger()
    done: list[Tended] = []
    for dataset in chosen:
        done.append(tend(lake, dataset, now=now, before=now - timedelta(hours=older_than_hours), dry_run=dry_run))
        log.info("%s: %s", dataset, done[-1].problem or f"{done[-1].merged} merged, {done[-1].orphans} orphans")
    create_markdown_artifact(key="maintain", markdown=report(done, dry_run=dry_run), description=f"lake, {environment}")
    return settled(done, dry_run=dry_run)

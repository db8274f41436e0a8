"""Prefect tasks of garbage collection and of the lake's maintenance."""

from datetime import UTC, datetime, timedelta

from prefect import get_run_logger, task

from blocks.environment import open_environment
from tasks.cleanup.garbage import artifact_owners, plan_cloud_actions, plan_removals, remove_planned, run_cloud_actions
from tasks.cleanup.maintenance import maintain_dataset, maintenance_result, model_datasets
from tasks.cleanup.records import GarbageCollectionPlan, GarbageCollectionResult, MaintenanceResult
from tasks.cleanup.rules.cloud import IdleEndpointAction
from tasks.cleanup.rules.garbage import bytes_text, garbage_collection_markdown
from tasks.cleanup.rules.maintenance import DatasetMaintenance, maintenance_markdown
from tasks.shared.models import known_models, load_model
from tasks.shared.reports import create_markdown_artifact
from tasks.shared.retries import TASK_OPTIONS


@task(name="plan garbage collection", **TASK_OPTIONS)
def plan_garbage_collection(
    environment: str, grace_days: float, idle_hours: float, idle_endpoints: IdleEndpointAction
) -> GarbageCollectionPlan:
    """Return everything that a garbage collection would remove now, and show it as an artifact of the flow run."""
    env, now = open_environment(environment), datetime.now(UTC)
    planned = plan_removals(env, artifact_owners(env), known_models(env), timedelta(days=grace_days), now)
    actions = plan_cloud_actions(env, idle_hours, idle_endpoints, grace_days, now) if env.has_cloud_cleanup else ()
    planned = planned.model_copy(update={"cloud_actions": actions})
    shown = garbage_collection_markdown(planned)
    create_markdown_artifact(key="garbage-collection", markdown=shown, description="What is removed, and what is kept")
    get_run_logger().info("%s things may go, %s", len(planned.remove), bytes_text(planned.bytes))
    return planned


@task(name="run garbage collection", **TASK_OPTIONS)
def run_garbage_collection(
    planned: GarbageCollectionPlan, environment: str, grace_days: float
) -> GarbageCollectionResult:
    """Remove what was planned and is still unreferenced, and return the totals."""
    env, now = open_environment(environment), datetime.now(UTC)
    kept_by = artifact_owners(env)
    current_plan = plan_removals(env, kept_by, known_models(env), timedelta(days=grace_days), now, measure=False)
    done = remove_planned(planned, current_plan, kept_by)
    if planned.cloud_actions:
        run_cloud_actions(env.cloud_cleanup(), planned.cloud_actions, environment, now)
    get_run_logger().info("%s things were removed, %s", done.removed, bytes_text(done.bytes))
    return done


@task(name="maintain", **TASK_OPTIONS)
def maintain_datasets(model: str, dry_run: bool, min_orphan_age_hours: int, environment: str) -> MaintenanceResult:
    """Maintain the data sets of one model, or of the lake for "". `flows.maintain_lake` documents the arguments.

    Raises:
        Corrupt: a data set is damaged, or a read returns other rows than before. All other data sets were maintained.
    """
    lake = open_environment(environment).lake()
    there = lake.datasets()
    chosen = model_datasets(load_model(model).spec, there) if model else there
    now, log = datetime.now(UTC), get_run_logger()
    done: list[DatasetMaintenance] = []
    for dataset in chosen:
        done.append(
            maintain_dataset(
                lake, dataset, now=now, removable_before=now - timedelta(hours=min_orphan_age_hours), dry_run=dry_run
            )
        )
        log.info("%s: %s", dataset, done[-1].problem or f"{done[-1].merged} merged, {done[-1].orphans} orphans")
    create_markdown_artifact(
        key="maintain", markdown=maintenance_markdown(done, dry_run=dry_run), description=f"lake, {environment}"
    )
    return maintenance_result(done, dry_run=dry_run)

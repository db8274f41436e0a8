"""Prefect tasks of sampling: draw a data tier, and publish its rows."""

from datetime import UTC, datetime

from prefect import get_run_logger, task

from blocks.environment import open_environment
from tasks.sampling.publishing import publish_rows, reason_not_published
from tasks.shared.models import load_model
from tasks.shared.namespaces import check_namespace_allowed
from tasks.shared.reads import resolve_reads
from tasks.shared.records import PublishResult, TierData
from tasks.shared.retries import TASK_OPTIONS
from tasks.shared.tiers import materialise


@task(name="publish", **TASK_OPTIONS)
def publish(model: str, data: TierData, environment: str) -> PublishResult | None:
    """Publish the rows of a full tier when `model.yaml` says under which name; else do nothing.

    Nor in a namespace: what others build on is published by the shared model alone.
    """
    spec = load_model(model).spec
    if not spec.data.publish or data.tier != "full":
        return None
    if skip_reason := reason_not_published(spec):
        get_run_logger().info("%s", skip_reason)
        return None
    env = open_environment(environment)
    done = publish_rows(env.lake(), env.engine(), spec, data, at=datetime.now(UTC))
    get_run_logger().info("%d new rows in snapshot %s of %s", done.rows, done.snapshot or "-", done.dataset)
    return done


@task(name="sample", **TASK_OPTIONS)
def sample(model: str, tier: str, as_of: str, environment: str) -> TierData:
    """Return the tier of the model's data as of a snapshot or time ("" is now), split into train and holdout."""
    env = open_environment(environment)
    check_namespace_allowed(env, model)
    lake, spec = env.lake(), load_model(model).spec
    return materialise(lake, env.engine(), resolve_reads(lake, spec.data, as_of), spec, tier, env.scratch)

"""Prefect tasks of sampling: draw a data tier, and publish its rows."""

from datetime import UTC, datetime

from prefect import get_run_logger, task

from blocks.environment import open_environment
from tasks.sampling.publishing import kept_back, publish_rows
from tasks.shared.models import load_model
from tasks.shared.namespaces import check_allowed
from tasks.shared.reads import fix_reads
from tasks.shared.records import Published, TierData
from tasks.shared.retries import STAGE
from tasks.shared.tiers import materialise


@task(name="publish", **STAGE)
def publish(model: str, data: TierData, environment: str) -> Published | None:
    """Publish the rows of a production tier when `model.yaml` says under which name; else do nothing.

    Nor in a namespace: what others build on is published by the shared model alone.
    """
    spec = load_model(model).spec
    if not spec.data.publish or data.tier != "production":
        return None
    if why := kept_back(spec):
        get_run_logger().info("%s", why)
        return None
    world = open_environment(environment)
    done = publish_rows(world.lake(), world.engine(), spec, data, at=datetime.now(UTC))
    get_run_logger().info("%d new rows in snapshot %s of %s", done.rows, done.snapshot or "-", done.dataset)
    return done


@task(name="sample", **STAGE)
def sample(model: str, tier: str, as_of: str, environment: str) -> TierData:
    """Return the tier of the model's data as of a snapshot or time ("" is now), split into train and holdout."""
    world = open_environment(environment)
    check_allowed(world, model)
    lake, spec = world.lake(), load_model(model).spec
    return materialise(lake, world.engine(), fix_reads(lake, spec.data, as_of), spec, tier, world.scratch)

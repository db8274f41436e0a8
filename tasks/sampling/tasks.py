"""Prefect tasks of sampling: draw a data tier, and publish its rows."""

from datetime import UTC, datetime

from prefect import get_run_logger, task

from blocks.environment import open_environment
from tasks.sampling.publishing import publish_rows, reason_not_published
from tasks.shared.models import check_namespace_allowed, load_model
from tasks.shared.records import PublishResult, TierData
from tasks.shared.retries import TASK_OPTIONS
from tasks.shared.rules.promotion import is_promotable_tier
from tasks.shared.tables import resolve_reads
from tasks.shared.tiers import materialise


@task(name="publish", **TASK_OPTIONS)
def publish(model: str, data: TierData, environment: str) -> PublishResult | None:
    """Publish the rows of a full tier when `model.yaml` names a data set for them (`data.publish`).

    Another tier, or a model in a namespace, publishes nothing: other models build only on the shared model's rows.
    """
    spec = load_model(model).spec
    if not spec.data.publish or not is_promotable_tier(data.tier):
        return None
    if skip_reason := reason_not_published(spec):
        get_run_logger().info("%s", skip_reason)
        return None
    env = open_environment(environment)
    published = publish_rows(env.lake(), env.engine(), spec, data, at=datetime.now(UTC))
    get_run_logger().info("%d new rows in snapshot %s of %s", published.rows, published.snapshot or "-",
                          published.dataset)  # fmt: skip
    return published


@task(name="sample", **TASK_OPTIONS)
def sample(model: str, tier: str, as_of: str, environment: str) -> TierData:
    """Return a tier of the model's data as of a snapshot or time ("" means now), split into train and holdout."""
    env, spec = open_environment(environment), load_model(model).spec
    check_namespace_allowed(env, model)
    lake = env.lake()
    return materialise(lake, env.engine(), resolve_reads(lake, spec.data, as_of), spec, tier, env.scratch)

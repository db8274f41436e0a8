"""Sampling: draw a data tier from the lake, and publish its joined rows for other models to build on."""

from datetime import UTC, datetime

import pyarrow as pa
from prefect import get_run_logger, task

from blocks.common.errors import NotFound
from blocks.engines.base import Engine
from blocks.environment import open_environment
from blocks.lake.base import BUCKET_COLUMN, Lake, Snapshot
from tasks.sampling.rules.features import (
    MODEL_NOTE,
    RULES_DIGEST_NOTE,
    feature_rules_digest,
    refuse_other_publisher,
    unpublished_rows_sql,
)
from tasks.shared.models import check_namespace_allowed, load_model
from tasks.shared.records import PublishResult, TierData
from tasks.shared.retries import TASK_OPTIONS
from tasks.shared.rules.model.holdout import parse_holdout_rule
from tasks.shared.rules.model.namespaces import base_name, namespace_part
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.promotion import is_promotable_tier
from tasks.shared.tables import VALUES_NOTE, resolve_reads
from tasks.shared.tiers import materialise, parquet_files


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
    data = materialise(lake, env.engine(), resolve_reads(lake, spec.data, as_of), spec, tier, env.scratch)
    get_run_logger().info("%s", split_sentence(data))
    return data


def split_sentence(data: TierData) -> str:
    """Return how the rows of a tier were divided, and how many are in each part."""
    parts = {"train": data.train_rows, "validate": data.validation_rows, "decide": data.holdout_rows}
    counted = ", ".join(f"{count:,} {part}" for part, count in parts.items() if count)
    unused = f", {data.unused_rows:,} are in neither part" if data.unused_rows else ""
    cut_off = f" (cut-off {data.cut_off})" if data.cut_off else ""
    rule = parse_holdout_rule(data.holdout_rule).sentence
    return f"Of {data.all_rows:,} rows, {counted}{unused}. Holdout: {rule}{cut_off}."


def reason_not_published(spec: ModelSpec) -> str:
    """Return why this model's rows are not published although `model.yaml` names a data set; "" when they are."""
    if not namespace_part(spec.name):
        return ""
    base, named = base_name(spec.name), spec.data.publish
    return f"{named} is published by {base} alone, not from a namespace: nothing was added to it."


def publish_rows(lake: Lake, engine: Engine, spec: ModelSpec, data: TierData, *, at: datetime) -> PublishResult:
    """Append the rows that are not published yet as one snapshot. Its key is the digest of the tier.

    Publishing the same tier again adds nothing.

    Raises:
        Refusal: the data set was published by another model or by other rules.
    """
    name = spec.data.publish or ""
    newest, rules = _newest_snapshot(lake, name), feature_rules_digest(spec.data)
    if newest is not None:
        refuse_other_publisher(name, newest.notes, spec.name, rules)
    earlier = lake.find_by_key(name, data.digest)
    if earlier is not None:
        return PublishResult(dataset=name, snapshot=earlier.id, rows=earlier.rows, new=False)
    files = {"rows": tuple(str(path) for part in data.all_parts for path in parquet_files(part))}
    if newest is not None:
        files["published"] = lake.files(lake.as_of(name, newest.id))
    rows = _rows_or_none(engine.stream(unpublished_rows_sql(spec.data, published=newest is not None), files))
    if rows is None:
        return PublishResult(dataset=name, snapshot=newest.id if newest else "", rows=0, new=False)
    source = f"{spec.name}, {data.tier} tier as of {data.as_of}"
    notes = {MODEL_NOTE: spec.name, RULES_DIGEST_NOTE: rules, "tier": data.digest, VALUES_NOTE: data.values}
    # Rows of the newest snapshot were left out: if another snapshot came in between, this append must fail.
    expected_latest = newest.id if newest else ""
    snapshot = lake.append(
        name, rows, source=source, key=data.digest, at=at, notes=notes, expected_parent=expected_latest
    )
    return PublishResult(dataset=name, snapshot=snapshot.id, rows=snapshot.rows)


def _newest_snapshot(lake: Lake, dataset: str) -> Snapshot | None:
    try:
        return lake.as_of(dataset).snapshots[-1]
    except NotFound:
        return None


def _rows_or_none(rows: pa.RecordBatchReader) -> pa.RecordBatchReader | None:
    """Return the rows with int32 buckets, as the lake stores them; None when there is no row."""
    first = next((batch for batch in rows if batch.num_rows), None)
    if first is None:
        return None
    place = rows.schema.get_field_index(BUCKET_COLUMN)
    schema = rows.schema.set(place, pa.field(BUCKET_COLUMN, pa.int32()))
    batches = (batch.cast(schema) for group in ([first], rows) for batch in group)
    return pa.RecordBatchReader.from_batches(schema, batches)

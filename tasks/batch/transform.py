"""Predict with a batch transform job: price it first, join predictions and keys, and log the cost to a tracked run."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import get_run_logger
from prefect.runtime import flow_run

from blocks.batch_inference.base import BatchInference, BatchInferenceJob, RequestPart
from blocks.environment import Environment
from runtime.digests import text_digest
from tasks.batch.input import InferenceInput
from tasks.batch.predictor import Predictor, passthrough_schema, predictions_table
from tasks.batch.rules.transform import (
    BATCH_JOB_TAG,
    BatchPlacement,
    choose_placement,
    parse_predictions,
    placement_markdown,
    split_into_requests,
)
from tasks.shared.cost import model_month_to_date_cost, read_prices, try_log_job_cost
from tasks.shared.models import TeamModel
from tasks.shared.reports import create_markdown_artifact, only_reports
from tasks.shared.rules.cost.budget import CostBreakdown, WorstCaseCost, check_budget, job_worst_case
from tasks.shared.rules.cost.prices import PriceTable
from tasks.shared.rules.cost.spent import WORST_CASE_TAG

CHEAPER_BATCH_REMEDY = "Use a cheaper instance, or remove [batch_inference] from the environment"
LOCAL_COST = WorstCaseCost(0.0, "0.00 USD: predicted in the flow run", is_paid=False)
NOT_SERVED = WorstCaseCost(0.0, "none: nothing is deployed", is_paid=False)


def choose_and_price_placement(env: Environment, model: TeamModel, rows: int) -> tuple[BatchPlacement, WorstCaseCost]:
    """Return where the rows are predicted and the worst-case cost, and show both as an artifact.

    Raises:
        Refusal: paid machines are needed, but they have no price or exceed the model's budget.
    """
    place, bill = price_placement(env, model, rows, read_prices(), datetime.now(UTC))
    markdown = placement_markdown(place, model.spec.name, bill.run.explanation)
    create_markdown_artifact(
        key="batch-placement", markdown=markdown, description="Where the rows are predicted, and why"
    )
    check_budget(bill, model.spec.budget, model.spec.name, CHEAPER_BATCH_REMEDY)
    return place, bill.run


def price_placement(
    env: Environment, model: TeamModel, rows: int, price_table: PriceTable, now: datetime
) -> tuple[BatchPlacement, CostBreakdown]:  # fmt: skip
    """Return where the rows are predicted, and the worst-case cost."""
    batch_inference = env.batch_inference() if env.has_batch_inference else None

    def hourly() -> float:
        return (
            job_worst_case(price_table, "transform", batch_inference.compute(3600), now.date()).usd
            if batch_inference
            else 0.0
        )

    place = choose_placement(rows, model.spec.budget.local_rows, batch_inference, hourly)
    if place.target == "flow" or batch_inference is None:
        return place, CostBreakdown(LOCAL_COST, NOT_SERVED, 0.0)
    worst = job_worst_case(price_table, "transform", batch_inference.compute(place.max_seconds), now.date())
    so_far = model_month_to_date_cost(env, model.spec.name, now) if worst.is_paid else 0.0
    return place, CostBreakdown(worst, NOT_SERVED, so_far)


def predict_by_batch_job(
    env: Environment,
    name: str,
    rows: InferenceInput,
    rows_sql: str,
    predictor: Predictor,
    place: BatchPlacement,
    worst: WorstCaseCost,
    to: Path,
) -> None:
    """Predict the rows with a transform job, and write the predictions as Parquet below the new folder `to`.

    The job's name is derived from the rows and the version, so that a retry after a crash attaches to the running job.
    `rows_sql` is SQL over the input's tables that returns entity, features and bucket. The predictor names the version,
    its files and its columns, and loads no model here.
    """
    transform, tracking = env.batch_inference(), env.tracking()
    job_name = batch_job_name(name, rows, predictor.version)
    run = tracking.open_run(name, key=f"batch-inference:{job_name}", name=f"batch inference of {rows.rows} rows")
    tags = {"ratchet.flow_run": str(flow_run.id), BATCH_JOB_TAG: job_name}  # a retry is another flow run
    tracking.log(run.id, tags=tags | ({WORST_CASE_TAG: f"{worst.usd:.6f}"} if worst.is_paid else {}))
    job = BatchInferenceJob(
        job_name, predictor.model_path, predictor.version, predictor.model_digest, place.max_seconds, run.id
    )  # fmt: skip
    succeeded = False
    try:
        transform.run(job, request_parts(rows, rows_sql, predictor), get_run_logger().info)
        write_predictions(transform, job.name, predictor, to)
        succeeded = True
    finally:
        with only_reports("the end of the tracked run"):
            try_log_job_cost(tracking, run.id, transform, job)
            tracking.close_run(run.id, "FINISHED" if succeeded else "FAILED")


def batch_job_name(model: str, rows: InferenceInput, version: str) -> str:
    """Return the job's name: equal for equal rows and version.

    Its digits depend on the model's whole name, because two namespaces may differ only in the part that is cut off.
    """
    digits = text_digest(f"{model} {rows.predictions_key(version)}")[:16]
    return f"{model.replace('_', '-')[:26].rstrip('-')}-batch-{digits}"


def request_parts(rows: InferenceInput, rows_sql: str, predictor: Predictor) -> Iterator[RequestPart]:
    """Yield the rows as requests. Key, position and bucket accompany each request, but are not sent to the model."""
    data, kept = predictor.data, passthrough_schema(predictor.data).names
    for batch in rows.engine.stream(rows_sql, rows.tables):
        for body, table in split_into_requests(pa.Table.from_batches([batch]), list(data.features)):
            yield RequestPart(body, table.select([name for name in kept if name in table.column_names]))


def write_predictions(transform: BatchInference, name: str, predictor: Predictor, to: Path) -> None:
    """Write the predictions of a completed job, each with its row's key, position and bucket.

    A job that was submitted before positions were kept has none: there they are null.

    Raises:
        Corrupt: a response is missing.
        Refusal: a response is no valid prediction of the task, or does not have one prediction per row.
    """
    to.mkdir()
    with pq.ParquetWriter(to / "rows-00000.parquet", predictor.schema) as file:
        for key_table, body in transform.responses(name):
            numbers = parse_predictions(body, key_table.num_rows)
            table = predictions_table(predictor.data, key_table, numbers, predictor.version)
            file.write_table(table.cast(predictor.schema))

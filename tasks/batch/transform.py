"""Predict by batch transform: priced before, joined to the keys afterwards, its cost logged to a tracked run."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from blocks.common.errors import NotFound, PortError
from blocks.common.jobs import JobStatus
from blocks.environment import Environment
from blocks.lake.base import BUCKET_COLUMN
from blocks.tracking.base import Tracking
from blocks.transforms.base import Part, Transform, TransformJob
from runtime.digests import text_digest
from tasks.batch.input import Input
from tasks.batch.predictor import Predictor, predictions_table
from tasks.batch.rules.payload import cut, said
from tasks.batch.rules.place import TRANSFORM, Place, choose_place, place_markdown
from tasks.shared.cost import log_cost, month_so_far, read_prices
from tasks.shared.models import Model
from tasks.shared.rules.cost.budget import Bill, check_budget
from tasks.shared.rules.cost.prices import PriceTable
from tasks.shared.rules.cost.spent import WORST, actual_cost
from tasks.shared.rules.cost.worst import Estimate, job_worst
from tasks.shared.rules.refusal import Refusal

CHEAPER = "Take a cheaper instance, or leave [transform] out of the environment"
UNPAID = Estimate(0.0, "0.00 USD: it is done in the flow run", paid=False)
UNSERVED = Estimate(0.0, "none: nothing of it is served", paid=False)


def choose(world: Environment, model: Model, rows: int) -> tuple[Place, Estimate]:
    """Return where so many rows are predicted and what that costs at worst, and show it as an artifact.

    Raises:
        Refusal: paid machines are the place, and have no price or are above the model's budget.
    """
    place, bill = price_place(world, model, rows, read_prices(), datetime.now(UTC))
    shown = place_markdown(place, model.spec.name, bill.training.words)
    create_markdown_artifact(key="score", markdown=shown, description="Where the rows are predicted, and why")
    check_budget(bill, model.spec.budget, model.spec.name, CHEAPER)
    return place, bill.training


def price_place(
    world: Environment, model: Model, rows: int, table: PriceTable, now: datetime
) -> tuple[Place, Bill]:  # fmt: skip
    """Return where so many rows are predicted, and what that may cost.

    Raises:
        Refusal: the price of paid machines is needed to decide, and not known.
    """
    machines = world.transform() if world.has_transform else None

    def hourly() -> float:
        return job_worst(table, "transform", machines.compute(3600), now.date()).usd if machines else 0.0

    place = choose_place(rows, model.spec.budget.local_rows, machines, hourly)
    if place.where == "flow" or machines is None:
        return place, Bill(UNPAID, UNSERVED, 0.0)
    worst = job_worst(table, "transform", machines.compute(place.max_seconds), now.date())
    so_far = month_so_far(world, model.spec.name, now) if worst.paid else 0.0
    return place, Bill(worst, UNSERVED, so_far)


def predict_by_transform(
    world: Environment, name: str, rows: Input, asked: str, predictor: Predictor, place: Place, worst: Estimate,
    to: Path,
) -> None:  # fmt: skip
    """Have the rows predicted by a transform job, and write the predictions as Parquet below `to`.

    The job is named after rows and version, so whoever comes after a crash attaches to the one that is there. What
    is written is the caller's own until it has appended all of it.

    Args:
        world: where the machines are.
        name: the model's name.
        rows: what is to be predicted, with the SQL `asked` for entity, features and bucket.
        asked: see `rows`.
        predictor: names the version, its files and its columns; it loads nothing here.
        place: says how long the job may take.
        worst: what it costs at worst.
        to: a new folder.
    """
    transform, tracking = world.transform(), world.tracking()
    named = transform_name(name, rows, predictor.version)
    run = tracking.open_run(name, key=f"score:{named}", name=f"scoring of {rows.rows} rows")
    tags = {"ratchet.flow_run": str(flow_run.id), TRANSFORM: named}  # of who waits for it now: it may be the second
    tracking.log(run.id, tags=tags | ({WORST: f"{worst.usd:.6f}"} if worst.paid else {}))
    job = TransformJob(
        named, predictor.artifact, predictor.version, predictor.digest, place.max_seconds, run.id
    )  # fmt: skip
    ended = False
    try:
        transform.run(job, parts(rows, asked, predictor), get_run_logger().info)
        write(transform, job.name, predictor, to)
        ended = True
    finally:
        settle_transform(tracking, run.id, transform, job)
        tracking.close_run(run.id, "FINISHED" if ended else "FAILED")


def transform_name(model: str, rows: Input, version: str) -> str:
    """Return the name of the job that predicts these rows with that version: the same for the same.

    The whole of the model's name is in its digits: what is cut off may be all that tells two namespaces apart.
    """
    digits = text_digest(f"{model} {rows.key(version)}")[:16]
    return f"{model.replace('_', '-')[:26].rstrip('-')}-score-{digits}"


def parts(rows: Input, asked: str, predictor: Predictor) -> Iterator[Part]:
    """Yield the rows as requests; entity and bucket are carried along, and not sent to the model."""
    data = predictor.data
    for batch in rows.engine.stream(asked, rows.tables):
        for body, table in cut(pa.Table.from_batches([batch]), list(data.features)):
            yield Part(body, table.select([data.entity, BUCKET_COLUMN]))


def write(transform: Transform, name: str, predictor: Predictor, to: Path) -> None:
    """Write the predictions of a completed job, each beside its row's entity and bucket.

    Raises:
        Corrupt: an answer is not there.
        Refusal: one is no prediction of the task, or not one a row.
    """
    to.mkdir()
    with pq.ParquetWriter(to / "rows-00000.parquet", predictor.schema) as file:
        for carried, body in transform.answers(name):
            numbers = said(body, carried.num_rows)
            keys, buckets = carried.column(predictor.data.entity), carried.column(BUCKET_COLUMN)
            table = predictions_table(predictor.data, keys, buckets, numbers, predictor.version)
            file.write_table(table.cast(predictor.schema))


def settle_transform(tracking: Tracking, run_id: str, transform: Transform, job: TransformJob) -> None:
    """Log what a job cost, by what it ran; where it runs on, or its price is not known, its worst case stays."""
    try:
        state = transform.state(job.name)
        if state.status is not JobStatus.in_progress:
            asked = transform.compute(job.max_seconds)
            usd, seconds = actual_cost(read_prices(), asked, state, "transform")
            log_cost(tracking, run_id, usd, seconds, failed=state.status is not JobStatus.completed)
    except NotFound:  # it was refused before it began: nothing runs that could be billed
        log_cost(tracking, run_id, 0.0, 0.0, failed=True)
    except (PortError, Refusal) as problem:
        get_run_logger().warning("what run %s cost is not known, so it counts with its worst case: %s", run_id, problem)

"""Prefect task of batch inference."""

from pathlib import Path

from prefect import get_run_logger, task

from blocks.common.temporary import swept_folder
from blocks.environment import open_environment
from tasks.batch.input import Input, open_input
from tasks.batch.predictor import Predictor
from tasks.batch.scoring import add_predictions, in_flow
from tasks.batch.transform import choose, predict_by_transform
from tasks.shared.champion import approved_digest, champion_files, champion_version
from tasks.shared.checks import settle
from tasks.shared.models import load_model
from tasks.shared.records import Scored
from tasks.shared.retries import STAGE
from tasks.shared.rules.refusal import Refusal
from tasks.validation.rules.expectations import check
from tasks.validation.rules.parquet_rows import ParquetRows


@task(name="score", **STAGE)
def score_rows(model: str, source: str, query: str, environment: str, as_of: str = "") -> Scored:
    """Check the rows, predict them with the champion, and append the predictions to the lake.

    However many rows there are, they are read, checked and predicted in bounded memory.

    Raises:
        Refusal: the model serves nothing yet, its files are not those that were approved, or the rows do not
            meet the model's expectations (all but those of the target).
    """
    world, brought = open_environment(environment), load_model(model)
    data = brought.spec.data
    version = champion_version(world, model)
    if not version:
        raise Refusal("the model serves nothing yet", where=model, remedy="Retrain and approve a first version.")
    artifact = champion_files(world, model, version)
    predictor = Predictor(world.tracking(), artifact, approved_digest(world, model, version), data, version)

    def hold(rows: ParquetRows) -> None:
        suite = brought.suite().without(data.target).for_rows(1)
        settle(check(rows, suite, key=data.entity), where=f"{model}, {source}")

    def predict(rows: Input, asked: str, to: Path) -> None:
        place, worst = choose(world, brought, rows.rows)
        get_run_logger().info("predicted by %s, because %s", place.where, place.reason)
        if place.where == "flow":
            in_flow(rows, asked, predictor, to)
        else:
            predict_by_transform(world, model, rows, asked, predictor, place, worst, to)

    with swept_folder(world.scratch / "score", "score-") as folder:
        rows = open_input(world, data, source, query, as_of, folder)
        dataset = brought.spec.own_dataset("predictions")
        kept = add_predictions(world.lake(), rows, predictor, hold, folder, predict, dataset=dataset)
    get_run_logger().info("%d predictions of version %s in snapshot %s", kept.rows, version, kept.id)
    return Scored(dataset=kept.dataset, snapshot=kept.id, rows=kept.rows, version=version)

"""Prefect task of batch inference."""

from pathlib import Path

from prefect import get_run_logger, task

from blocks.common.temporary_folders import temporary_folder
from blocks.environment import open_environment
from tasks.batch.input import InferenceInput, open_inference_input
from tasks.batch.predictor import Predictor
from tasks.batch.scoring import append_predictions, predict_in_flow
from tasks.batch.transform import choose_and_price_placement, predict_by_batch_job
from tasks.shared.champion import approved_digest, champion_version, verified_champion_files
from tasks.shared.checks import report_and_require_valid
from tasks.shared.models import load_model
from tasks.shared.records import BatchInferenceResult
from tasks.shared.retries import TASK_OPTIONS
from tasks.shared.rules.refusal import Refusal
from tasks.validation.rules.expectations import validate_table
from tasks.validation.rules.parquet_rows import ParquetRows


@task(name="score", **TASK_OPTIONS)
def run_batch_inference(model: str, source: str, query: str, environment: str, as_of: str = "") -> BatchInferenceResult:
    """Check the rows, predict them with the champion, and append the predictions to the lake.

    However many rows there are, they are read, checked and predicted in bounded memory.

    Raises:
        Refusal: the model serves nothing yet, its files are not those that were approved, or the rows do not
            meet the model's expectations (all but those of the target).
    """
    env, team_model = open_environment(environment), load_model(model)
    data = team_model.spec.data
    version = champion_version(env, model)
    if not version:
        raise Refusal("the model serves nothing yet", where=model, remedy="Retrain and approve a first version.")
    artifact = verified_champion_files(env, model, version)
    predictor = Predictor(env.tracking(), artifact, approved_digest(env, model, version), data, version)

    def validate_rows(rows: ParquetRows) -> None:
        suite = team_model.expectation_suite().without_column(data.target).with_minimum_rows(1)
        report_and_require_valid(validate_table(rows, suite, key=data.entity), where=f"{model}, {source}")

    def predict(rows: InferenceInput, asked: str, to: Path) -> None:
        place, worst_case = choose_and_price_placement(env, team_model, rows.rows)
        get_run_logger().info("predicted by %s, because %s", place.target, place.reason)
        if place.target == "flow":
            predict_in_flow(rows, asked, predictor, to)
        else:
            predict_by_batch_job(env, model, rows, asked, predictor, place, worst_case, to)

    with temporary_folder(env.scratch / "score", "score-") as folder:
        rows = open_inference_input(env, data, source, query, as_of, folder)
        dataset = team_model.spec.own_dataset("predictions")
        kept = append_predictions(env.lake(), rows, predictor, validate_rows, folder, predict, dataset=dataset)
    get_run_logger().info("%d predictions of version %s in snapshot %s", kept.rows, version, kept.id)
    return BatchInferenceResult(dataset=kept.dataset, snapshot=kept.id, rows=kept.rows, version=version)

"""Prefect task of batch inference."""

from prefect import get_run_logger, task

from blocks.environment import open_environment
from tasks.batch.scoring import predict_source
from tasks.shared.models import load_model
from tasks.shared.records import BatchInferenceResult
from tasks.shared.retries import TASK_OPTIONS


@task(name="run batch inference", **TASK_OPTIONS)
def run_batch_inference(model: str, source: str, query: str, environment: str, as_of: str = "") -> BatchInferenceResult:
    """Validate the rows, predict them with the champion, and append the predictions to the lake.

    Reading, validation and prediction use bounded memory for any number of rows.

    Raises:
        Refusal: no version of the model is deployed, its files are not the approved ones, or the rows fail an
            expectation (other than those of the target).
    """
    env, team_model = open_environment(environment), load_model(model)
    result = predict_source(env, team_model, source, query, as_of, get_run_logger().info)
    get_run_logger().info("%d predictions of version %s in snapshot %s", result.rows, result.version, result.snapshot)
    return result

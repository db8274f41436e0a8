"""Batch predictions with the version that serves."""

from prefect import flow

from flows.parameters import EnvironmentName, ModelName
from tasks.records import Scored
from tasks.score import score_rows


@flow(name="score", persist_result=True, result_serializer="json", flow_run_name="{model} on {input}")
def score(model: ModelName, input: str, query: str = "", environment: EnvironmentName = "local") -> Scored:
    """Check the input, predict with the champion, and keep the predictions as a new snapshot of the lake.

    Args:
        model: The model's name: a folder below models/.
        input: A .csv or .parquet file that the worker can read, or an SQLAlchemy URL. It needs no target column.
        query: The SELECT to run when the input is a database. Empty otherwise.
        environment: The set of adapters to run on: a file in deployments/environments/.
    """
    return score_rows(model, input, query, environment)

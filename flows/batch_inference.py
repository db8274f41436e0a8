"""Batch inference with the deployed version."""

from prefect import flow

from flows.authorization import authorize_run
from flows.options import FLOW_OPTIONS, end_order, named_for_source
from flows.parameters import AsOf, EnvironmentName, ModelName, OrderId, SourceAddress
from flows.stopping import stop_batch_inference_jobs
from tasks.batch.tasks import run_batch_inference
from tasks.shared.records import BatchInferenceResult


@flow(
    name="batch_inference",
    flow_run_name=named_for_source("on"),
    **FLOW_OPTIONS | {"on_cancellation": [stop_batch_inference_jobs, end_order]},
)
def batch_inference(
    model: ModelName,
    source: SourceAddress,
    query: str = "",
    as_of: AsOf = "",
    environment: EnvironmentName = "local",
    order: OrderId = "",
) -> BatchInferenceResult:
    """Validate the input, predict with the champion, and append the predictions to the lake as a new snapshot.

    Args:
        model: The model's name: a folder below models/.
        source: A .csv, .jsonl or .parquet file, a folder of them, a glob, s3://bucket/prefix/, an SQLAlchemy URL,
            block:NAME for a Secret block that holds such a URL with its password, or lake: with the name of a data
            set, such as lake:churn. It needs no target column.
        query: The SELECT to run when the input is a database. Empty otherwise.
        as_of: When the input is a data set of the lake, a snapshot's id, or a time with its zone such as
            2026-11-21T10:00:00Z. Empty is now.
        environment: The set of adapters to run on: a file in deployments/environments/.
        order: The signed order of whoever starts the run, made by the gateway (docs/actions.md). Empty: nobody proved
            a name.
    """
    authorize_run("batch_inference", model, environment, order)
    return run_batch_inference(model, source, query, environment, as_of)

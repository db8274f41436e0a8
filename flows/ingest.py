"""Ingest a source into the lake."""

from prefect import flow
from prefect.client.schemas.objects import State

from flows.authorization import authorize_run
from flows.exclusive import one_at_a_time
from flows.options import FLOW_OPTIONS, named_for_source
from flows.outcomes import completed
from flows.parameters import EnvironmentName, ModelName, OrderId, SourceAddress
from tasks.ingestion.tasks import ingest_source
from tasks.shared.records import IngestResult


@flow(name="ingest", flow_run_name=named_for_source("from"), **FLOW_OPTIONS)
def ingest(
    model: ModelName,
    source: SourceAddress,
    query: str = "",
    environment: EnvironmentName = "local",
    watermark: str = "",
    redrive: str = "",
    table: str = "",
    look_back: str = "",
    order: OrderId = "",
) -> State[IngestResult]:
    """Append the rows of a source to the model's data set as one snapshot, and quarantine invalid rows with reasons.

    Args:
        model: The model whose data this is: a folder below models/.
        source: A .csv, .jsonl or .parquet file that the worker can read, a folder or glob of such files (in/*.parquet), an s3://bucket/prefix/, an SQLAlchemy URL such as sqlite:////data/crm.db, a table (delta:s3://bucket/table, iceberg:/data/t/metadata/v3.metadata.json), or block:NAME for a Secret block that holds such a URL with its password. Of a folder, glob or prefix, only files that are new since the last load are read.
        query: The SELECT to run when the source is a database. Empty otherwise.
        environment: The set of adapters to run on: a file in deployments/environments/.
        watermark: For a database, the column of the query that only grows, such as updated_at. The next load then reads only rows above the highest ingested value. Empty to read everything.
        redrive: When the source is a corrected quarantine file: the id of the quarantine snapshot that it came from. Empty otherwise.
        look_back: With a watermark, how far below the highest ingested value to read again, for rows that become visible late: 3 days, 36 hours, or a number. Rows that were read before are left out. Empty to read only what is above.
        table: Which of the model's tables this is: a name under data.tables of model.yaml. Empty for the main table.
        order: The signed order of whoever starts the run, made by the gateway (docs/actions.md). Empty: nobody proved a name.
    """  # noqa: E501  (the form takes one line a parameter)
    authorize_run("ingest", model, environment, order)
    with one_at_a_time(f"ingest-{model}"):
        result = ingest_source(model, source, query, environment, watermark, redrive, table, look_back)
    return completed(result.summary, result)

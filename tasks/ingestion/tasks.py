"""Prefect task that ingests a source."""

from contextlib import closing

from prefect import get_run_logger, task

from blocks.environment import open_environment
from tasks.ingestion.datasets import ingest_schema
from tasks.ingestion.landing import ingest_rows, open_source_rows
from tasks.shared.models import load_model
from tasks.shared.records import IngestResult
from tasks.shared.retries import TASK_OPTIONS
from tasks.shared.rules.model.data import MAIN_TABLE


@task(name="ingest", **TASK_OPTIONS)
def ingest_source(
    model: str,
    source: str,
    query: str,
    environment: str,
    watermark: str = "",
    redrive: str = "",
    table: str = MAIN_TABLE,
    look_back: str = "",
) -> IngestResult:
    """Read the declared columns of a source and ingest its rows. `flows.ingest` describes the arguments."""
    env, data = open_environment(environment), ingest_schema(load_model(model), table)
    lake, scratch = env.lake(), env.scratch / "ingest"
    allowed = env.allowed_sources()
    with closing(open_source_rows(lake, data, source, query, watermark, redrive, scratch, allowed, look_back)) as rows:
        result = ingest_rows(lake, data, rows, scratch=scratch, redrive=redrive)
    get_run_logger().info("%s", result.summary)
    return result

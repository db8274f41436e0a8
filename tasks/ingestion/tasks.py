"""Prefect task of ingestion."""

from contextlib import closing

from prefect import get_run_logger, task

from blocks.environment import open_environment
from blocks.sources import open_source
from blocks.sources.secret_addresses import resolve_address
from tasks.ingestion.landing import (
    _ensure_folder,
    ingest_rows,
    ingest_schema,
    processed_files,
    quarantine_dataset,
    watermark_filter,
)
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
) -> IngestResult:
    """Read a source by the columns that the model declares and land it; see `flows.ingest` for the arguments."""
    data, env = ingest_schema(model, table), open_environment(environment)
    lake, scratch = env.lake(), env.scratch / "ingest"
    if redrive:
        lake.as_of(quarantine_dataset(data), redrive)  # NotFound when there is no such snapshot
    address = resolve_address(source)
    rows = open_source(
        address,
        query=query,
        kinds=data.column_kinds,
        watermark=watermark_filter(lake, data, address, query, watermark),
        processed=None if redrive else processed_files(lake, data),
        scratch=_ensure_folder(scratch),
        redrive=bool(redrive),
    )
    with closing(rows):
        landed = ingest_rows(lake, data, rows, scratch=scratch, redrive=redrive)
    log = get_run_logger()
    log.info("%d rows in = %d accepted + %d quarantined", landed.rows_in, landed.accepted, landed.quarantined)
    if not landed.appended:
        log.info("nothing was added: these rows are in the lake already, up to snapshot %s", landed.snapshot)
    return landed

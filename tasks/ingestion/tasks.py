"""Prefect task of ingestion."""

from contextlib import closing

from prefect import get_run_logger, task

from blocks.environment import open_environment
from blocks.sources import open_source
from blocks.sources.addresses import address_of
from tasks.ingestion.landing import _made, land_rows, landed_files, landing_of, newer, quarantine_of
from tasks.shared.records import Landed
from tasks.shared.retries import STAGE
from tasks.shared.rules.model.data import MAIN_TABLE


@task(name="ingest", **STAGE)
def land(
    model: str,
    source: str,
    query: str,
    environment: str,
    watermark: str = "",
    redrive: str = "",
    table: str = MAIN_TABLE,
) -> Landed:
    """Read a source by the columns that the model declares and land it; see `flows.ingest` for the arguments."""
    data, world = landing_of(model, table), open_environment(environment)
    lake, scratch = world.lake(), world.scratch / "ingest"
    if redrive:
        lake.as_of(quarantine_of(data), redrive)  # NotFound when there is no such snapshot
    address = address_of(source)
    rows = open_source(
        address,
        query=query,
        kinds=data.kinds,
        since=newer(lake, data, address, query, watermark),
        taken=None if redrive else landed_files(lake, data),
        scratch=_made(scratch),
        redrive=bool(redrive),
    )
    with closing(rows):
        landed = land_rows(lake, data, rows, scratch=scratch, redrive=redrive)
    log = get_run_logger()
    log.info("%d rows in = %d accepted + %d quarantined", landed.rows_in, landed.accepted, landed.quarantined)
    if not landed.new:
        log.info("nothing was added: these rows are in the lake already, up to snapshot %s", landed.snapshot)
    return landed

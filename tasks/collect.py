"""Bring what the endpoint has logged into the lake: segment by segment, each once."""

import time
from datetime import UTC, datetime

from prefect import get_run_logger, task

from blocks.endpoints.base import Endpoint
from blocks.environment import open_environment
from blocks.errors import Corrupt
from blocks.lake.base import Lake
from tasks.logic.model.spec import ModelSpec
from tasks.logic.watch.requests import dataset_of, requests_table
from tasks.models import load_model
from tasks.records import Collected
from tasks.retries import STAGE


@task(name="collect", **STAGE)
def collect(model: str, environment: str) -> Collected:
    """Land the segments of the model's inference log that wait, and have the endpoint forget them."""
    world, spec = open_environment(environment), load_model(model).spec
    done = land_segments(world.endpoint(), world.lake(), spec)
    get_run_logger().info("%d rows of %d segments landed in %s", done.rows, done.segments, done.dataset)
    return done


def land_segments(endpoint: Endpoint, lake: Lake, spec: ModelSpec) -> Collected:
    """Append each segment under its name as the key, then discard it; of a repeat nothing is added.

    Raises:
        Corrupt: a segment cannot be read, or a request in it does not hold what it has to.
        Conflict: a column had another type in earlier segments.
    """
    started, dataset, segments, rows = time.monotonic(), dataset_of(spec), 0, 0
    for logged in endpoint.logged(spec.name):
        key = f"{spec.name}:{logged.segment}"
        if lake.find(dataset, key) is None:
            try:
                table = requests_table(spec, logged.requests)
            except (KeyError, TypeError, ValueError) as cause:
                problem = f"segment {logged.segment} of the log of {spec.name} cannot be read: {cause}"
                raise Corrupt(f"{problem}. Look at it in the endpoint's log, and remove it there.") from cause
            if table is not None:
                lake.append(dataset, table, source=f"endpoint {spec.name}", key=key, at=datetime.now(UTC))
                rows += table.num_rows
        endpoint.forget_logged(spec.name, logged.segment)
        segments += 1
    return Collected(dataset=dataset, segments=segments, rows=rows, seconds=time.monotonic() - started)

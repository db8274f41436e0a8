"""Bring what the endpoint has logged into the lake: segment by segment, each once."""

import time
from datetime import UTC, datetime

from blocks.common.errors import Corrupt
from blocks.endpoints.base import Endpoint
from blocks.lake.base import Lake
from tasks.monitoring.rules.requests import inference_dataset, inference_log_table
from tasks.shared.records import InferenceLogResult
from tasks.shared.rules.model.spec import ModelSpec


def ingest_log_segments(endpoint: Endpoint, lake: Lake, spec: ModelSpec) -> InferenceLogResult:
    """Append each segment under its name as the key, then discard it; of a repeat nothing is added.

    Raises:
        Corrupt: a segment cannot be read, or a request in it does not hold what it has to.
        Conflict: a column had another type in earlier segments.
    """
    started_at, dataset, segments, rows = time.monotonic(), inference_dataset(spec), 0, 0
    for logged in endpoint.log_segments(spec.name):
        key = f"{spec.name}:{logged.name}"
        if lake.find_by_key(dataset, key) is None:
            try:
                table = inference_log_table(spec, logged.requests)
            except (KeyError, TypeError, ValueError) as cause:
                problem = f"segment {logged.name} of the log of {spec.name} cannot be read: {cause}"
                raise Corrupt(f"{problem}. Look at it in the endpoint's log, and remove it there.") from cause
            if table is not None:
                lake.append(dataset, table, source=f"endpoint {spec.name}", key=key, at=datetime.now(UTC))
                rows += table.num_rows
        endpoint.delete_log_segment(spec.name, logged.name)
        segments += 1
    return InferenceLogResult(dataset=dataset, segments=segments, rows=rows, seconds=time.monotonic() - started_at)

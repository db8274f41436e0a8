"""What the model server records of requests: the inference log, and traffic counters.

The counters are kept by minute for three hours, and by hour for 31 days. A request only changes counters in memory. A
thread saves the changed counters every 10 s; a crash loses at most that much, and no request waits for the disk.
"""

import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi import Path as PathField
from fastapi.responses import FileResponse, Response
from fastapi.security import HTTPBearer
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException

from blocks.records.traffic import TrafficInterval, latency_bin
from runtime.files import write_text_atomically
from runtime.inference_log import InferenceLog, LoggedRequest
from runtime.scoring import ScoringResponse
from runtime.segments import SEGMENT_SUFFIX
from services.model_server.state import ReleasedVersion

_log = logging.getLogger("ratchet.model_server")

RETENTION = {60: 180, 3600: 744}
"""Number of intervals that are kept, by their length in seconds."""
SAVE_SECONDS = 10.0

_INTERVALS = TypeAdapter(list[TrafficInterval])

REQUEST_ID_HEADER = "X-Request-Id"
_REQUEST_ID_HEADERS = (REQUEST_ID_HEADER, "X-Amzn-SageMaker-Inference-Id")
_VALID_REQUEST_ID = re.compile(r"[!-~]{1,128}")

EndpointName = Annotated[
    str, PathField(max_length=63, pattern=r"^[A-Za-z0-9](-{0,2}[A-Za-z0-9_])*$", description="the endpoint's name")
]
SegmentName = Annotated[str, PathField(pattern=r"^[A-Za-z0-9-]{1,80}$", description="a segment's name")]


def log_request(
    log: InferenceLog, name: str, request: Request, body: bytes, response: ScoringResponse, released: ReleasedVersion
) -> str:
    """Pass a successful request to the log, if the release has log rules; return the request's id.

    The golden request is not traffic and is not logged.
    """
    sent_id = next((value for header in _REQUEST_ID_HEADERS if (value := request.headers.get(header))), "")
    request_id = sent_id if _VALID_REQUEST_ID.fullmatch(sent_id) else uuid.uuid4().hex
    rules = released.log
    rows = row_count(response) if rules is not None else 0
    if rules is not None and rows and body != released.golden.request.encode():
        entry = LoggedRequest(
            datetime.now(UTC), request_id, released.version, rows, response.sent_values, response.body, len(body),
            rules.excluded_columns, rules.hashed_columns,
        )  # fmt: skip
        log.enqueue(name, entry)
    return request_id


def row_count(response: ScoringResponse) -> int:
    """Return the number of predicted rows; 0 when the predictions are not a list, which is not logged.

    For a model whose signature names no columns the predictions are counted, because its input is not logged.
    """
    if response.sent_values:
        return len(next(iter(response.sent_values.values())))
    predictions = json.loads(response.body)["predictions"]
    return len(predictions) if isinstance(predictions, list) else 0


def add_log_routes(app: FastAPI, log: InferenceLog) -> None:
    """Add the routes by which a collector lists, reads and deletes segments; `AdminGuard` checks the token."""
    guarded = [Depends(HTTPBearer(auto_error=False))]

    @app.get(
        "/admin/endpoints/{name}/log", summary="Close the open segments and list all of them", dependencies=guarded
    )
    def segments(name: EndpointName) -> list[str]:
        log.close_segments()
        return sorted(
            path.name.removesuffix(SEGMENT_SUFFIX) for path in (log.root / name).glob(f"[!.]*{SEGMENT_SUFFIX}")
        )

    @app.get("/admin/endpoints/{name}/log/{segment}", summary="One segment, as gzip", dependencies=guarded)
    def segment(name: EndpointName, segment: SegmentName) -> Response:
        path = _segment_path(log, name, segment)
        if not path.is_file():
            raise HTTPException(404, f"{name} has no segment {segment!r}")
        return FileResponse(path, media_type="application/gzip")

    @app.delete(
        "/admin/endpoints/{name}/log/{segment}", summary="Delete a segment", status_code=204, dependencies=guarded
    )
    def discard(name: EndpointName, segment: SegmentName) -> None:
        _segment_path(log, name, segment).unlink(missing_ok=True)


def _segment_path(log: InferenceLog, name: str, segment: str) -> Path:
    return log.root / name / f"{segment}{SEGMENT_SUFFIX}"


IntervalSeries = dict[tuple[int, datetime], TrafficInterval]
"""The intervals of an endpoint, by length in seconds and by start."""


class TrafficCounter:
    """The counters of all endpoints, saved in one folder that only this process uses."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder, self._clock = folder, clock
        self._series: dict[str, IntervalSeries] = {}
        self._changed: set[str] = set()
        self._lock, self._ended = threading.Lock(), threading.Event()

    def start(self) -> None:
        """Read the saved counters, and start the thread that saves them."""
        for path in self.folder.glob("*.json"):
            try:
                intervals = _INTERVALS.validate_json(path.read_bytes())
                kept = (each for each in intervals if each.interval_seconds in RETENTION)
                self._series[path.stem] = {(each.interval_seconds, each.start): each for each in kept}
            except (OSError, ValueError) as cause:  # unreadable counters must not stop the server
                _log.error("the traffic counters in %s cannot be read and start again at 0: %s", path, cause)
        threading.Thread(target=self._run, name="traffic", daemon=True).start()

    def count(self, name: str, status: int, milliseconds: float) -> None:
        """Count a response. It never waits for the disk."""
        now, latency = self._clock(), latency_bin(milliseconds)
        with self._lock:
            series = self._series.setdefault(name, {})
            for seconds in RETENTION:
                start = datetime.fromtimestamp(now // seconds * seconds, UTC)
                if (known := series.get((seconds, start))) is None:
                    _remove_expired(series, now)
                    known = TrafficInterval(start, seconds, 0, 0, 0)
                series[seconds, start] = replace(
                    known,
                    requests=known.requests + 1,
                    client_errors=known.client_errors + (400 <= status < 500),
                    server_errors=known.server_errors + (status >= 500),
                    latency_bins={**known.latency_bins, latency: known.latency_bins.get(latency, 0) + 1},
                )
            self._changed.add(name)

    def read(self, name: str) -> list[TrafficInterval]:
        """Return the intervals of an endpoint, oldest first: the hours, then the most recent minutes."""
        with self._lock:
            series = self._series.get(name, {})
            _remove_expired(series, self._clock())
            return sorted(series.values(), key=lambda each: (-each.interval_seconds, each.start))

    def save(self) -> None:
        """Save the counters that changed since the last save. If that fails, they are saved the next time."""
        with self._lock:
            names, self._changed = self._changed, set()
        for name in names:
            try:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                content = _INTERVALS.dump_json(self.read(name)).decode()
                write_text_atomically(self.folder / f"{name}.json", content)
            except OSError as cause:
                with self._lock:
                    self._changed.add(name)
                _log.warning("the traffic counters of %s cannot be saved: %s", name, cause)

    def stop(self) -> None:
        """Save the counters, and end."""
        self._ended.set()
        self.save()

    def _run(self) -> None:
        while not self._ended.wait(SAVE_SECONDS):
            self.save()


def _remove_expired(series: IntervalSeries, now: float) -> None:
    old = [key for key in series if key[1].timestamp() <= now - now % key[0] - RETENTION[key[0]] * key[0]]
    for key in old:
        del series[key]

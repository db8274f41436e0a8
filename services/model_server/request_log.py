"""The inference log of the model server: what is logged of a request, and the routes that a collector uses."""

import json
import re
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi import Path as PathField
from fastapi.responses import FileResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from runtime.inference_log import InferenceLog, LoggedRequest
from runtime.scoring import ScoringResponse
from runtime.segments import SEGMENT_SUFFIX
from services.model_server.state import ReleasedVersion

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

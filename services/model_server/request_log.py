"""The host's inference log: what of an answered request goes into it, and the calls by which it is collected."""

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
    log: InferenceLog, name: str, request: Request, body: bytes, reply: ScoringResponse, placement: ReleasedVersion
) -> str:
    """Hand an answered request to the log, where the release says so; return the request's id.

    The golden request is not traffic, and is left out.
    """
    given = next((found for header in _REQUEST_ID_HEADERS if (found := request.headers.get(header))), "")
    known_as = given if _VALID_REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    rules = placement.log
    rows = row_count(reply) if rules is not None else 0
    if rules is not None and rows and body != placement.golden.request.encode():
        entry = LoggedRequest(
            datetime.now(UTC), known_as, placement.version, rows, reply.sent_values, reply.body, len(body),
            rules.leave_out, rules.hashed,
        )  # fmt: skip
        log.enqueue(name, entry)
    return known_as


def row_count(reply: ScoringResponse) -> int:
    """Return how many rows were answered; 0 for an answer that is no list, which is not logged.

    Of a model whose signature names no columns the answer is counted: what it was asked is not logged.
    """
    if reply.sent_values:
        return len(next(iter(reply.sent_values.values())))
    predictions = json.loads(reply.body)["predictions"]
    return len(predictions) if isinstance(predictions, list) else 0


def add_log_routes(app: FastAPI, log: InferenceLog) -> None:
    """Add the calls by which a collector lists, reads and removes segments; `AdminGuard` asks for the token."""
    guarded = [Depends(HTTPBearer(auto_error=False))]

    @app.get("/admin/endpoints/{name}/log", summary="End the segments begun and list them all", dependencies=guarded)
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
        "/admin/endpoints/{name}/log/{segment}", summary="Forget a segment", status_code=204, dependencies=guarded
    )
    def discard(name: EndpointName, segment: SegmentName) -> None:
        _segment_path(log, name, segment).unlink(missing_ok=True)


def _segment_path(log: InferenceLog, name: str, segment: str) -> Path:
    return log.root / name / f"{segment}{SEGMENT_SUFFIX}"

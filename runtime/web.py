"""HTTP helpers shared by the two scoring servers: bodies with a size limit, and JSON errors."""

import json
import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from runtime.columns import BadInput
from runtime.scoring import ScoringResponse

MAX_BODY_BYTES = 25 * 1024 * 1024
"""Maximum size of a request: SageMaker's limit for one invocation."""


async def read_body(request: Request, limit: int = MAX_BODY_BYTES) -> bytes:
    """Return the request's body. A body that is too large is read to its end, so that the caller gets the response.

    Raises:
        BadInput: status 413 if the body is larger than `limit` bytes; 400 if the caller closed the connection.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= limit:
                chunks.append(chunk)
            elif size > 4 * limit:
                break
    except ClientDisconnect:
        raise BadInput("the caller closed the connection before the body was complete") from None
    if size > limit:
        raise BadInput(f"the body is larger than {limit:,} bytes; send fewer rows at a time", 413)
    return b"".join(chunks)


def json_response(reply: ScoringResponse) -> Response:
    """Return the reply as a JSON response."""
    return Response(reply.body, reply.status, dict(reply.headers), "application/json")


def error_response(status: int, text: str, **more: str) -> Response:
    """Return `{"error": text, …}` with a status. `message` has the same text, for AWS's clients."""
    body = json.dumps({"error": text, "message": text, **more})
    return Response(body, status, media_type="application/json")


def add_json_error_handlers(app: FastAPI) -> None:
    """Make `app` respond to every error with `{"error": …}`, and never with a traceback."""

    @app.exception_handler(BadInput)
    async def bad_input(_: Request, cause: BadInput) -> Response:
        return error_response(cause.status, str(cause))

    @app.exception_handler(HTTPException)
    async def no_such_call(request: Request, cause: HTTPException) -> Response:
        return error_response(cause.status_code, f"{request.method} {request.url.path}: {cause.detail}")

    @app.exception_handler(RequestValidationError)
    async def bad_fields(_: Request, cause: RequestValidationError) -> Response:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in cause.errors())
        return error_response(400, wrong)

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, cause: Exception) -> Response:
        logging.getLogger("ratchet.web").error("%s %s failed", request.method, request.url.path, exc_info=cause)
        return error_response(500, f"internal error: {type(cause).__name__}")

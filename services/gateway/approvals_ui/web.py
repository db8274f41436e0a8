"""HTTP for the desk: a call with its body read within bounds, a reply with the headers that every reply bears."""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from fastapi.responses import Response

from blocks.common.errors import PortError
from services.gateway.request_body import BodyRejected, RequestLimits, read_body

_log = logging.getLogger("ratchet.desk")

REQUEST_LIMITS = RequestLimits(body_bytes=32_768)
"""Sign-ins and decisions are short."""
MAX_QUERY_BYTES = 4_096
HTML, JSON = "text/html; charset=utf-8", "application/json"

SECURITY_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""No script, nothing from elsewhere, in nobody's frame, in no cache."""


@dataclass(frozen=True)
class UiRequest:
    """What a browser or program asks."""

    method: str
    path: str
    request_id: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    cookies: Mapping[str, str]
    body: bytes
    client_address: str

    def form(self) -> dict[str, str]:
        """Return the fields of a form; of two with one name none counts. Raises Denied when it is no form."""
        if (
            self.headers.get("content-type", "").partition(";")[0].strip().lower()
            != "application/x-www-form-urlencoded"
        ):
            raise RequestError(415, "This is not a form as a browser sends it.")
        return _fields(self.body.decode("utf-8", errors="replace"))


@dataclass(frozen=True)
class UiResponse:
    """What it is told."""

    status: int
    content: bytes
    media_type: str = HTML
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: tuple[str, ...] = ()

    def with_cookies(self, *cookies: str) -> "UiResponse":
        """Return it with cookies to set."""
        return replace(self, cookies=(*self.cookies, *cookies))


class RequestError(Exception):
    """The call is refused: an HTTP status, and a sentence for whoever asked."""

    def __init__(self, status: int, said: str) -> None:
        self.status, self.message = status, said
        super().__init__(said)


Handler = Callable[[UiRequest], UiResponse]
ErrorHandler = Callable[[UiRequest, RequestError], UiResponse]


def json_response(status: int, content: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> UiResponse:
    """Return a reply to a program."""
    return UiResponse(status, json.dumps(content, ensure_ascii=False).encode(errors="replace"), JSON, headers or {})


def redirect(path: str) -> UiResponse:
    """Return a reply that sends a browser to another page of ours."""
    return UiResponse(303, b"", headers={"location": path})


def add_route(
    router: APIRouter, pool: ThreadPoolExecutor, method: str, path: str, handler: Handler, refuse: ErrorHandler
) -> None:
    """Have the handler answer a path, on a thread of the pool: the event loop takes deliveries in meanwhile."""

    async def answer(request: Request) -> Response:
        call = _read_request(request, b"")
        try:
            if len(request.scope["query_string"]) > MAX_QUERY_BYTES:
                raise RequestError(414, "The address is too long.")
            if method == "POST":
                call = replace(call, body=await read_body(request, REQUEST_LIMITS))
            reply = await asyncio.get_running_loop().run_in_executor(pool, _call_handler, handler, refuse, call)
        except BodyRejected as cut:
            reply = refuse(call, RequestError(cut.response.status, cut.response.reason))
        except RequestError as denied:
            reply = refuse(call, denied)
        return _to_http_response(reply)

    router.add_api_route(path, answer, methods=[method], response_model=None)


def _call_handler(handler: Handler, refuse: ErrorHandler, call: UiRequest) -> UiResponse:
    try:
        return handler(call)
    except RequestError as denied:
        return refuse(call, denied)
    except PortError as cause:
        _log.warning("%s %s: %s", call.method, call.path, cause)
        return refuse(call, RequestError(503, "What this needs does not answer just now. Try again."))
    except Exception:
        _log.exception("%s %s met an error of ours", call.method, call.path)
        return refuse(
            call, RequestError(500, "Something went wrong here; nothing was decided. The gateway's log has it.")
        )


def _read_request(request: Request, body: bytes) -> UiRequest:
    headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in request.scope["headers"]}
    query = _fields(request.scope["query_string"][:MAX_QUERY_BYTES].decode("latin-1"))
    address = request.client.host if request.client else "unknown"
    name = str(request.path_params.get("name", ""))
    return UiRequest(request.method, request.url.path, name, query, headers, request.cookies, body, address)


def _fields(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise RequestError(400, "There are too many fields.") from None
    names = [name for name, _ in pairs]
    return {name: value for name, value in pairs if names.count(name) == 1}


def _to_http_response(reply: UiResponse) -> Response:
    response = Response(reply.content, reply.status, {**SECURITY_HEADERS, **reply.headers}, media_type=reply.media_type)
    for cookie in reply.cookies:
        response.raw_headers.append((b"set-cookie", cookie.encode("latin-1")))
    return response

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
from services.gateway.body import Cut, Limits, read_body

_log = logging.getLogger("ratchet.desk")

LIMITS = Limits(body_bytes=32_768)
"""Sign-ins and decisions are short."""
QUERY_BYTES = 4_096
HTML, JSON = "text/html; charset=utf-8", "application/json"

SAFE = {
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
class Call:
    """What a browser or program asks."""

    method: str
    path: str
    name: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    cookies: Mapping[str, str]
    body: bytes
    address: str

    def form(self) -> dict[str, str]:
        """Return the fields of a form; of two with one name none counts. Raises Denied when it is no form."""
        if (
            self.headers.get("content-type", "").partition(";")[0].strip().lower()
            != "application/x-www-form-urlencoded"
        ):
            raise Denied(415, "This is not a form as a browser sends it.")
        return _fields(self.body.decode("utf-8", errors="replace"))


@dataclass(frozen=True)
class Reply:
    """What it is told."""

    status: int
    content: bytes
    kind: str = HTML
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: tuple[str, ...] = ()

    def with_cookies(self, *cookies: str) -> "Reply":
        """Return it with cookies to set."""
        return replace(self, cookies=(*self.cookies, *cookies))


class Denied(Exception):
    """The call is refused: an HTTP status, and a sentence for whoever asked."""

    def __init__(self, status: int, said: str) -> None:
        self.status, self.said = status, said
        super().__init__(said)


Handler = Callable[[Call], Reply]
Refuse = Callable[[Call, Denied], Reply]


def json_reply(status: int, content: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Reply:
    """Return a reply to a program."""
    return Reply(status, json.dumps(content, ensure_ascii=False).encode(errors="replace"), JSON, headers or {})


def see(path: str) -> Reply:
    """Return a reply that sends a browser to another page of ours."""
    return Reply(303, b"", headers={"location": path})


def add(router: APIRouter, pool: ThreadPoolExecutor, method: str, path: str, handler: Handler, refuse: Refuse) -> None:
    """Have the handler answer a path, on a thread of the pool: the event loop takes deliveries in meanwhile."""

    async def answer(request: Request) -> Response:
        call = _call(request, b"")
        try:
            if len(request.scope["query_string"]) > QUERY_BYTES:
                raise Denied(414, "The address is too long.")
            if method == "POST":
                call = replace(call, body=await read_body(request, LIMITS))
            reply = await asyncio.get_running_loop().run_in_executor(pool, _guarded, handler, refuse, call)
        except Cut as cut:
            reply = refuse(call, Denied(cut.answer.status, cut.answer.reason))
        except Denied as denied:
            reply = refuse(call, denied)
        return _response(reply)

    router.add_api_route(path, answer, methods=[method], response_model=None)


def _guarded(handler: Handler, refuse: Refuse, call: Call) -> Reply:
    try:
        return handler(call)
    except Denied as denied:
        return refuse(call, denied)
    except PortError as cause:
        _log.warning("%s %s: %s", call.method, call.path, cause)
        return refuse(call, Denied(503, "What this needs does not answer just now. Try again."))
    except Exception:
        _log.exception("%s %s met an error of ours", call.method, call.path)
        return refuse(call, Denied(500, "Something went wrong here; nothing was decided. The gateway's log has it."))


def _call(request: Request, body: bytes) -> Call:
    headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in request.scope["headers"]}
    query = _fields(request.scope["query_string"][:QUERY_BYTES].decode("latin-1"))
    address = request.client.host if request.client else "unknown"
    name = str(request.path_params.get("name", ""))
    return Call(request.method, request.url.path, name, query, headers, request.cookies, body, address)


def _fields(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise Denied(400, "There are too many fields.") from None
    names = [name for name, _ in pairs]
    return {name: value for name, value in pairs if names.count(name) == 1}


def _response(reply: Reply) -> Response:
    response = Response(reply.content, reply.status, {**SAFE, **reply.headers}, media_type=reply.kind)
    for cookie in reply.cookies:
        response.raw_headers.append((b"set-cookie", cookie.encode("latin-1")))
    return response

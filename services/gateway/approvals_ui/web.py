"""Requests and responses of the approvals page: bounded bodies, security headers, error handling, and page templates.

All values in a page are escaped; a missing value is an error.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from blocks.common.errors import Corrupt, PortError
from runtime.foreign_text import visible
from services.gateway.limits import BodyRejected, RequestLimits, read_body
from tasks.approval.rules.evidence import holdout_facts

_log = logging.getLogger("ratchet.approvals_ui")

REQUEST_LIMITS = RequestLimits(body_bytes=32_768)
"""Bodies of sign-ins and decisions are short."""
MAX_QUERY_BYTES = 4_096
TEMPLATES = Path(__file__).parent / "templates"

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
"""No script, no external content, no framing, no caching."""


class RequestError(Exception):
    """A request is refused: the HTTP status, and a message for the user."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)


class UiRequest(Request):
    """A request whose body has been received."""

    content: bytes = b""

    @property
    def path(self) -> str:
        """The path, decoded."""
        return str(self.scope["path"])

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the query; a name that occurs twice is left out."""
        return _fields(self.scope["query_string"][:MAX_QUERY_BYTES].decode("latin-1"))

    def form_fields(self) -> dict[str, str]:
        """Return the fields of a form; a name that occurs twice is left out. Raises RequestError for other bodies."""
        if self.media_type != "application/x-www-form-urlencoded":
            raise RequestError(415, "The request is not a form as a browser sends it.")
        return _fields(self.content.decode("utf-8", errors="replace"))

    @property
    def media_type(self) -> str:
        """The media type of the body, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


Handler = Callable[[UiRequest], Response]
ErrorHandler = Callable[[UiRequest, RequestError], Response]


def json_response(status: int, content: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response. Unlike Starlette's it can carry any text of a model, even one that UTF-8 cannot."""
    body = json.dumps(content, ensure_ascii=False).encode(errors="replace")
    return Response(body, status, headers, "application/json")


def redirect(path: str) -> Response:
    """Return a redirect to another path of the approvals page, or to the identity provider."""
    return RedirectResponse(path, 303)


def add_route(
    router: APIRouter, pool: ThreadPoolExecutor, method: str, path: str, handler: Handler, refuse: ErrorHandler
) -> None:
    """Add a route whose handler runs in a thread of the pool, so that the event loop can receive deliveries."""

    async def respond(request: Request) -> Response:
        call = UiRequest(request.scope)
        try:
            if len(request.scope["query_string"]) > MAX_QUERY_BYTES:
                raise RequestError(414, "The address is too long.")
            if method == "POST":
                call.content = await read_body(request, REQUEST_LIMITS)
            response = await asyncio.get_running_loop().run_in_executor(pool, _call_handler, handler, refuse, call)
        except BodyRejected as rejected:
            response = refuse(call, RequestError(rejected.response.status, rejected.response.reason))
        except RequestError as error:
            response = refuse(call, error)
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    router.add_api_route(path, respond, methods=[method], response_model=None)


def _call_handler(handler: Handler, refuse: ErrorHandler, call: UiRequest) -> Response:
    try:
        return handler(call)
    except RequestError as error:
        return refuse(call, error)
    except Corrupt as cause:
        _log.error("%s %s: %s", call.method, call.path, cause)
        return refuse(
            call, RequestError(503, f"The record is damaged and decides nothing until it is restored: {cause}")
        )
    except PortError as cause:
        _log.warning("%s %s: %s", call.method, call.path, cause)
        return refuse(call, RequestError(503, "A service that is needed for this is unavailable. Try again."))
    except Exception:
        _log.exception("internal error in %s %s", call.method, call.path)
        return refuse(
            call, RequestError(500, "Internal error; nothing was decided. The gateway's log has the details.")
        )


def _fields(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise RequestError(400, "The request has too many fields.") from None
    names = [name for name, _ in pairs]
    return {name: value for name, value in pairs if names.count(name) == 1}


def render_page(status: int, template: str, **values: Any) -> Response:
    """Return the page of a template."""
    return HTMLResponse(_templates().get_template(template).render(**values).encode(errors="replace"), status)


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_shown,
    )
    templates.filters |= {
        "number": format_number,
        "time": format_time,
        "dollars": format_dollars,
        "markdown": render_markdown,
    }
    templates.globals["difference"] = metric_difference
    templates.globals["holdout_facts"] = holdout_facts
    return templates


def stylesheet(_: UiRequest) -> Response:
    """Return the style sheet of the pages."""
    content = (TEMPLATES / "style.css").read_bytes()
    return Response(content, headers={"cache-control": "public, max-age=300"}, media_type="text/css")


def _shown(value: object) -> object:
    """Return a value of a template, a text with its invisible characters shown. Markup is made here and is safe."""
    return visible(value, keep="\n\r\t") if type(value) is str else value


def render_markdown(text: str) -> Markup:
    """Return a Markdown report as HTML. HTML in it is shown as text; links and images are switched off."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "image", "autolink"])
    return Markup(reader.render(text))  # noqa: S704  (html is off: everything else is escaped)


def format_number(value: float | None) -> str:
    """Return a number with four decimal places."""
    return "–" if value is None else f"{value:.4f}" if abs(value) < 1e6 else f"{value:.4g}"


def format_time(value: datetime) -> str:
    """Return a time in UTC, to the minute."""
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def format_dollars(value: float | None) -> str:
    """Return an amount in US dollars."""
    return "none: no paid work" if not value else f"{value:,.2f} USD"


def metric_difference(metric: str, ours: float | None, theirs: float | None) -> tuple[str, str]:
    """Return the difference from the champion, and whether it is "better", "worse" or ""."""
    from tasks.evaluation.rules.metrics import METRICS, higher_is_better  # imports pandas

    if ours is None or theirs is None:
        return "–", ""
    difference = ours - theirs
    if difference == 0 or not any(metric in names for names in METRICS.values()):
        return f"{difference:+.4f}", ""
    return f"{difference:+.4f}", "better" if (difference > 0) == higher_is_better(metric) else "worse"

"""HTTP routes of the model server: invocations, status under `/endpoints`, releases under `/admin`."""

import asyncio
import hmac
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from blocks.records.traffic import TrafficInterval
from runtime.foreign_pages import ForeignPageGuard
from runtime.inference_log import InferenceLog
from runtime.web import add_json_error_handlers, error_response, json_response, read_body
from services.model_server.endpoints import EndpointSlot, ServedEndpoints
from services.model_server.loading import ReleaseRefused
from services.model_server.pages import add_dashboard_routes, render_page
from services.model_server.recording import (
    REQUEST_ID_HEADER,
    EndpointName,
    TrafficCounter,
    add_log_routes,
    log_request,
)
from services.model_server.state import ReleaseRequest

RESPONSE_TIMEOUT_SECONDS = 60
"""Time limit of one response, as on SageMaker."""


class EndpointStatus(BaseModel):
    """Status of an endpoint and its counters since the server started; `logged` and `dropped` count rows."""

    endpoint: str
    version: str
    digest: str
    since: datetime
    serving: bool
    failure: str
    standby: str | None
    load_seconds: float
    requests: int
    refused: int
    failed: int
    logging: bool
    logged: int
    dropped: int
    log_problem: str


def endpoint_status(name: str, slot: EndpointSlot, log: InferenceLog) -> EndpointStatus:
    """Return the status of an endpoint; `refused` counts 4xx responses, `failed` 5xx."""
    live, written = slot.live, log.counts(name)
    return EndpointStatus(
        endpoint=name,
        version=live.released.version,
        digest=live.released.digest,
        since=live.released.since,
        serving=live.model is not None,
        failure=live.failure,
        standby=slot.standby.released.version if slot.standby else None,
        load_seconds=live.model.load_seconds if live.model else 0.0,
        requests=slot.requests,
        refused=slot.refused,
        failed=slot.failed,
        logging=live.released.log is not None,
        logged=written.logged,
        dropped=written.dropped,
        log_problem=written.problem,
    )


def create_app(
    fleet: ServedEndpoints,
    token: str,
    log: InferenceLog | None = None,
    dashboards: Path | None = None,
    clock: Callable[[], float] = time.time,
    addresses: Sequence[str] = (),
) -> FastAPI:
    """Return the application over the endpoints. Changes need the token; the log is in the endpoints' folder.

    `dashboards` is a folder of pages that are served unchanged; None: no pages. `clock` says in which hour and minute
    a request is counted, in seconds since 1970. `addresses` are those of `ForeignPageGuard`.
    """
    log = log or InferenceLog(fleet.folder / "log")
    meter = TrafficCounter(fleet.folder / "traffic", clock)
    pool = ThreadPoolExecutor(max(4, os.cpu_count() or 1), "score")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(fleet.start)
        log.start()
        meter.start()
        yield
        pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(log.stop)
        await asyncio.to_thread(meter.stop)

    app = FastAPI(
        title="Ratchet model server", description=__doc__, version="1", lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.add_middleware(AdminGuard, token=token)
    app.add_middleware(ForeignPageGuard, addresses=addresses)
    add_json_error_handlers(app)
    _add_status_routes(app, fleet, log, meter)
    _add_invocation_routes(app, fleet, pool, log, meter)
    _add_admin_routes(app, fleet, log)
    add_log_routes(app, log)
    if dashboards:
        add_dashboard_routes(app, dashboards)
    return app


def _add_status_routes(app: FastAPI, fleet: ServedEndpoints, log: InferenceLog, meter: TrafficCounter) -> None:
    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def status_page() -> str:
        return render_page([endpoint_status(name, slot, log).model_dump() for name, slot in fleet.endpoints().items()])

    @app.get("/ping", summary="200 when the server has loaded the versions it served before")
    async def ping() -> dict[str, int]:
        return {"endpoints": len(fleet.endpoints())}

    @app.get("/endpoints", summary="The status of all endpoints")
    async def endpoints() -> list[EndpointStatus]:
        return [endpoint_status(name, slot, log) for name, slot in fleet.endpoints().items()]

    @app.get("/endpoints/{name}", summary="The status of one endpoint")
    async def endpoint(name: EndpointName) -> EndpointStatus:
        slot = fleet.endpoints().get(name)
        if slot is None:
            raise HTTPException(404, f"there is no endpoint {name!r}")
        return endpoint_status(name, slot, log)

    @app.get("/endpoints/{name}/traffic", summary="Counts of requests and errors, and latencies, by interval")
    async def traffic(name: EndpointName) -> list[TrafficInterval]:
        if name not in fleet.endpoints():
            raise HTTPException(404, f"there is no endpoint {name!r}")
        return meter.read(name)


def _add_invocation_routes(
    app: FastAPI, fleet: ServedEndpoints, pool: ThreadPoolExecutor, log: InferenceLog, meter: TrafficCounter
) -> None:
    @app.post("/endpoints/{name}/invocations", summary="Score rows with the live model")
    async def invocations(name: EndpointName, request: Request) -> Response:
        body, begin = await read_body(request), time.monotonic()
        content_type = request.headers.get("content-type", "")
        work = asyncio.get_running_loop().run_in_executor(pool, fleet.score, name, body, content_type)
        try:
            scored = await asyncio.wait_for(work, RESPONSE_TIMEOUT_SECONDS)
        except TimeoutError:
            fleet.count_response(name, 504)
            meter.count(name, 504, 1000 * (time.monotonic() - begin))
            return error_response(504, f"the model did not respond within {RESPONSE_TIMEOUT_SECONDS} s")
        if scored is None:
            return error_response(404, f"there is no endpoint {name!r}", kind="NotFound")
        scoring, released = scored
        fleet.count_response(name, scoring.status)
        if body != released.golden.request.encode():  # the golden request is not counted as traffic
            meter.count(name, scoring.status, 1000 * (time.monotonic() - begin))
        if scoring.status == 200:
            response = json_response(scoring)
            response.headers[REQUEST_ID_HEADER] = log_request(log, name, request, body, scoring, released)
            return response
        response = error_response(scoring.status, scoring.error)
        response.headers.update(scoring.headers)
        return response


def _add_admin_routes(app: FastAPI, fleet: ServedEndpoints, log: InferenceLog) -> None:
    @app.exception_handler(ReleaseRefused)
    async def release_refused(_: Request, cause: ReleaseRefused) -> Response:
        return error_response(cause.status, str(cause), kind=cause.error_class)

    @app.put(
        "/admin/endpoints/{name}",
        summary="Load a version next to the live one, check it, and switch to it",
        dependencies=[Depends(HTTPBearer(auto_error=False))],  # describes the token; AdminGuard checks it
    )
    def release(name: EndpointName, order: ReleaseRequest) -> EndpointStatus:
        return endpoint_status(name, fleet.release(name, order), log)

    @app.delete(
        "/admin/endpoints/{name}",
        summary="Remove an endpoint",
        status_code=204,
        responses={404: {"description": "there is no endpoint with that name"}},
        dependencies=[Depends(HTTPBearer(auto_error=False))],
    )
    def remove(name: EndpointName) -> None:
        if not fleet.remove(name):
            raise HTTPException(404, f"there is no endpoint {name!r}")


class AdminGuard:
    """Lets nothing below `/admin` through without the token, before anything else reads the call."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or 403, or pass the call on."""
        if scope["type"] == "http" and scope["path"].split("/")[1:2] == ["admin"]:
            refused = access_error(self._token, Headers(scope=scope).get("authorization"))
            if refused:
                await error_response(*refused)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def access_error(token: str, authorization: str | None) -> tuple[int, str] | None:
    """Return why a request with this `Authorization` header is refused (status, reason), or None."""
    scheme, _, sent_token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not sent_token:
        return 401, "this request needs the header Authorization: Bearer <token>"
    if not hmac.compare_digest(sent_token.strip().encode(), token.encode()):
        return 403, "the token is not the token of this server"
    return None

"""The host's calls: SageMaker's runtime path to ask, `/endpoints` to look, `/admin` to change."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path as FolderPath
from typing import Annotated

from fastapi import Depends, FastAPI, Path, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from blocks.endpoints.traffic import TrafficInterval
from runtime.inference_log import InferenceLog
from runtime.web import add_json_error_handlers, error_response, json_response, read_body
from services.model_server.dashboards import add_dashboard_routes
from services.model_server.endpoints import EndpointSlot, ServedEndpoints
from services.model_server.guard import AdminGuard
from services.model_server.loading import ReleaseRefused
from services.model_server.page import render_page
from services.model_server.request_log import REQUEST_ID_HEADER, add_log_routes, log_request
from services.model_server.state import ReleaseRequest
from services.model_server.traffic import TrafficCounter

EndpointName = Annotated[
    str, Path(max_length=63, pattern=r"^[A-Za-z0-9](-{0,2}[A-Za-z0-9_])*$", description="the endpoint's name")
]

RESPONSE_TIMEOUT_SECONDS = 60
"""How long a model may take for one answer, as on SageMaker."""


class EndpointStatus(BaseModel):
    """What an endpoint serves, and how it has fared since the host started; `logged` and `dropped` count rows."""

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
    """Return an endpoint's state; `refused` counts 4xx answers, `failed` 5xx."""
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
    fleet: ServedEndpoints, token: str, log: InferenceLog | None = None, dashboards: FolderPath | None = None
) -> FastAPI:
    """Return the server over a fleet, whose changes need the token; its log lies in the fleet's folder.

    `dashboards` is a folder of pages that are shown as they are; None: none are.
    """
    log = log or InferenceLog(fleet.folder / "log")
    meter = TrafficCounter(fleet.folder / "traffic")
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

    app = FastAPI(title="Ratchet hosting", description=__doc__, version="1", lifespan=lifespan)
    app.add_middleware(AdminGuard, token=token)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "::1"])
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
    async def people() -> str:
        return render_page([endpoint_status(name, slot, log).model_dump() for name, slot in fleet.endpoints().items()])

    @app.get("/ping", summary="200 when the host is up and has loaded what it served before")
    async def ping() -> dict[str, int]:
        return {"endpoints": len(fleet.endpoints())}

    @app.get("/endpoints", summary="What is served")
    async def endpoints() -> list[EndpointStatus]:
        return [endpoint_status(name, slot, log) for name, slot in fleet.endpoints().items()]

    @app.get("/endpoints/{name}", summary="What one endpoint serves")
    async def endpoint(name: EndpointName) -> EndpointStatus:
        slot = fleet.endpoints().get(name)
        if slot is None:
            raise HTTPException(404, f"there is no endpoint {name!r}")
        return endpoint_status(name, slot, log)

    @app.get("/endpoints/{name}/traffic", summary="How often it was asked, how it fared, how long answers took")
    async def traffic(name: EndpointName) -> list[TrafficInterval]:
        if name not in fleet.endpoints():
            raise HTTPException(404, f"there is no endpoint {name!r}")
        return meter.read(name)


def _add_invocation_routes(
    app: FastAPI, fleet: ServedEndpoints, pool: ThreadPoolExecutor, log: InferenceLog, meter: TrafficCounter
) -> None:
    @app.post("/endpoints/{name}/invocations", summary="Ask the live model")
    async def invocations(name: EndpointName, request: Request) -> Response:
        body, begin = await read_body(request), time.monotonic()
        content_type = request.headers.get("content-type", "")
        work = asyncio.get_running_loop().run_in_executor(pool, fleet.score, name, body, content_type)
        try:
            scored = await asyncio.wait_for(work, RESPONSE_TIMEOUT_SECONDS)
        except TimeoutError:
            fleet.count_response(name, 504)
            meter.count(name, 504, 1000 * (time.monotonic() - begin))
            return error_response(504, f"the model did not answer within {RESPONSE_TIMEOUT_SECONDS} s")
        if scored is None:
            return error_response(404, f"there is no endpoint {name!r}", kind="NotFound")
        reply, placement = scored
        fleet.count_response(name, reply.status)
        if body != placement.golden.request.encode():  # the golden request is not traffic
            meter.count(name, reply.status, 1000 * (time.monotonic() - begin))
        if reply.status == 200:
            answer = json_response(reply)
            answer.headers[REQUEST_ID_HEADER] = log_request(log, name, request, body, reply, placement)
            return answer
        answer = error_response(reply.status, reply.error)
        answer.headers.update(reply.headers)
        return answer


def _add_admin_routes(app: FastAPI, fleet: ServedEndpoints, log: InferenceLog) -> None:
    @app.exception_handler(ReleaseRefused)
    async def unchanged(_: Request, cause: ReleaseRefused) -> Response:
        return error_response(cause.status, str(cause), kind=cause.error_class)

    @app.put(
        "/admin/endpoints/{name}",
        summary="Load a version beside the live one, prove it, and switch",
        dependencies=[Depends(HTTPBearer(auto_error=False))],  # describes the token; AdminGuard checks it
    )
    def release(name: EndpointName, order: ReleaseRequest) -> EndpointStatus:
        return endpoint_status(name, fleet.release(name, order), log)

    @app.delete(
        "/admin/endpoints/{name}",
        summary="Stop answering under a name",
        status_code=204,
        responses={404: {"description": "nothing answers under that name"}},
        dependencies=[Depends(HTTPBearer(auto_error=False))],
    )
    def withdraw(name: EndpointName) -> None:
        if not fleet.remove(name):
            raise HTTPException(404, f"there is no endpoint {name!r}")

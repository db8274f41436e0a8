"""The gateway's HTTP: reads a body within size and time, has it verified, and answers once it is safe in the inbox."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import get_args

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from blocks.common.errors import PortError
from blocks.inbox.base import Arrival, Inbox, Note
from deployments.secret_store import SecretStore, SecretUnavailable
from services.gateway.in_flight import InFlightDeliveries
from services.gateway.inbox_writer import InboxWriter
from services.gateway.ingest import (
    INVALID_SIGNATURE_RESPONSE,
    UnreadableDelivery,
    WebhookResponse,
    read_delivery,
    response_to,
)
from services.gateway.request_body import BodyRejected, RequestLimits, read_body
from services.gateway.rules.payloads import Sender
from services.gateway.rules.rules import Triggers
from services.gateway.signatures import Headers, InvalidSignature, verify_delivery

_log = logging.getLogger("ratchet.gateway")

__all__ = ["RequestLimits", "create_app"]

NOTE_EVERY = timedelta(minutes=1)
"""How often a forgery of one kind is noted, at most."""
SENDERS: Mapping[str, Sender] = {name: name for name in get_args(Sender)}


def create_app(
    inbox: Inbox,
    triggers: Triggers,
    vault: SecretStore,
    limits: RequestLimits | None = None,
    on_accepted: Callable[[], None] = lambda: None,
    in_flight: InFlightDeliveries | None = None,
    approvals_router: APIRouter | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> FastAPI:
    """Return the server.

    `on_accepted` is called when something new waits in the inbox; `in_flight` is told who comes; `approvals_router` is where people decide;
    `clock` says when a delivery comes.
    """
    within, hook, seen = (
        limits or RequestLimits(),
        _WebhookHandler(inbox, triggers, vault, clock),
        in_flight or InFlightDeliveries(),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        hook.close()

    app = FastAPI(title="Ratchet gateway", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    if approvals_router is not None:
        app.include_router(approvals_router)

    @app.get("/ping")
    async def ping() -> dict[str, str]:
        return {"gateway": "up"}

    @app.post("/hooks/{name}")
    async def deliver(name: str, request: Request) -> Response:
        if (sender := SENDERS.get(name)) is None:
            raise HTTPException(404)
        try:
            with seen.track():
                body = await read_body(request, within)
                async with asyncio.timeout(within.inbox_seconds):
                    answer = await hook.handle(sender, request, body)
        except BodyRejected as cut:
            answer = cut.response
        except TimeoutError:
            answer = WebhookResponse(503, "not taken", "the inbox is busy; send it again")
        if answer.status == 202:
            on_accepted()
        return _to_http_response(answer)

    @app.exception_handler(HTTPException)
    async def no_such_call(_: Request, cause: HTTPException) -> Response:
        return _to_http_response(WebhookResponse(cause.status_code, "refused", str(cause.detail)))

    return app


class _WebhookHandler:
    """Verifies and reads deliveries side by side, and hands what is genuine to the writer: no forgery waits there."""

    def __init__(self, inbox: Inbox, triggers: Triggers, vault: SecretStore, clock: Callable[[], datetime]) -> None:
        self.triggers, self.vault, self.clock = triggers, vault, clock
        self.writer = InboxWriter(inbox)
        self.verifier_pool = ThreadPoolExecutor(2, "read")
        self._last_noted: dict[tuple[str, str], datetime] = {}

    def close(self) -> None:
        """Let what was begun end."""
        self.verifier_pool.shutdown(wait=True)
        self.writer.close()

    async def handle(self, sender: Sender, request: Request, body: bytes) -> WebhookResponse:
        """Verify and store; whatever goes wrong, nothing is acknowledged that is not stored."""
        headers, now, loop = request.scope["headers"], self.clock(), asyncio.get_running_loop()
        try:
            read = await loop.run_in_executor(self.verifier_pool, self._read, sender, headers, body, now)
            if isinstance(read, UnreadableDelivery):
                await self.writer.note(read.note)
                return read.response
            return response_to(read, await self.writer.receive(read))
        except InvalidSignature as fault:
            await self._note_invalid_signature(sender, str(fault), request, now)
            return INVALID_SIGNATURE_RESPONSE
        except (SecretUnavailable, PortError) as cause:
            _log.warning("%s: not taken: %s", sender, cause)
            return WebhookResponse(503, "not taken", "it cannot be taken in just now; send it again")
        except Exception:
            _log.exception("%s: a delivery met an error of ours", sender)
            return WebhookResponse(503, "not taken", "it cannot be taken in just now; send it again")

    def _read(self, sender: Sender, headers: Headers, body: bytes, now: datetime) -> Arrival | UnreadableDelivery:
        rules = self.triggers.senders.get(sender)
        secrets = self.vault.values(rules.secrets) if rules else []
        proof = verify_delivery(sender, headers, body, secrets, now.timestamp())
        return read_delivery(self.triggers, sender, headers, body, proof, now)

    async def _note_invalid_signature(self, sender: Sender, fault: str, request: Request, now: datetime) -> None:
        """Log and note a forgery, each kind at most once a minute: who forges must not fill the disk."""
        before = self._last_noted.get((sender, fault))
        if before is not None and timedelta(0) <= now - before < NOTE_EVERY:
            return
        self._last_noted[sender, fault] = now
        source = request.client.host if request.client else "unknown"
        _log.warning("%s: refused, from %s: %s", sender, source, fault)
        note = Note(f"{sender}:", "forged", f"{fault}; from {source}", now)
        try:
            await self.writer.note(note)
        except PortError as cause:
            _log.warning("the refusal could not be noted: %s", cause)


def _to_http_response(answer: WebhookResponse) -> Response:
    headers = {"connection": "close"} if answer.status in {408, 413} else {}
    if answer.status == 503:
        headers = {"retry-after": "30"}
    return JSONResponse(answer.content(), answer.status, headers)

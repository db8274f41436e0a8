"""The gateway's HTTP application.

It reads the body within limits, verifies the signature, and responds after the delivery is stored in the inbox.
"""

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
from blocks.inbox.base import Inbox, InboxNote, IncomingDelivery
from deployments.secret_store import SecretStore, SecretUnavailable
from services.gateway.inbox_writer import InboxWriter
from services.gateway.ingest import (
    INVALID_SIGNATURE_RESPONSE,
    UnreadableDelivery,
    WebhookResponse,
    read_delivery,
    response_to,
)
from services.gateway.limits import BodyRejected, InFlightDeliveries, RequestLimits, read_body
from services.gateway.rules.payloads import Sender
from services.gateway.rules.rules import Triggers
from services.gateway.signatures import Headers, InvalidSignature, verify_delivery

_log = logging.getLogger("ratchet.gateway")

__all__ = ["RequestLimits", "create_app"]

NOTE_EVERY = timedelta(minutes=1)
"""Minimum time between two notes about invalid signatures of one kind."""
SENDERS: Mapping[str, Sender] = {name: name for name in get_args(Sender)}
_UNAVAILABLE_RESPONSE = WebhookResponse(
    503, "unavailable", "the delivery cannot be stored at the moment; send it again"
)


def create_app(
    inbox: Inbox,
    triggers: Triggers,
    secret_store: SecretStore,
    limits: RequestLimits | None = None,
    on_accepted: Callable[[], None] = lambda: None,
    in_flight: InFlightDeliveries | None = None,
    approvals_router: APIRouter | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> FastAPI:
    """Return the application.

    Args:
        inbox, triggers, secret_store: where deliveries are stored, the trigger rules, the secrets of the webhooks.
        limits: of size and time.
        on_accepted: called after each new delivery.
        in_flight: counts the open requests.
        approvals_router: serves the approvals UI.
        clock: the time at which a delivery was received.
    """
    bounds, deliveries = limits or RequestLimits(), in_flight or InFlightDeliveries()
    handler = _WebhookHandler(inbox, triggers, secret_store, clock)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        handler.close()

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
            with deliveries.track():
                body = await read_body(request, bounds)
                async with asyncio.timeout(bounds.inbox_seconds):
                    response = await handler.handle(sender, request, body)
        except BodyRejected as rejected:
            response = rejected.response
        except TimeoutError:
            response = WebhookResponse(503, "unavailable", "the inbox is busy; send it again")
        if response.status == 202:
            on_accepted()
        return _to_http_response(response)

    @app.exception_handler(HTTPException)
    async def error_response(_: Request, cause: HTTPException) -> Response:
        return _to_http_response(WebhookResponse(cause.status_code, "refused", str(cause.detail)))

    return app


class _WebhookHandler:
    """Verifies and parses deliveries in parallel, and passes only verified ones to the inbox writer."""

    def __init__(
        self, inbox: Inbox, triggers: Triggers, secret_store: SecretStore, clock: Callable[[], datetime]
    ) -> None:
        self.triggers, self.secret_store, self.clock = triggers, secret_store, clock
        self.writer = InboxWriter(inbox)
        self.verifier_pool = ThreadPoolExecutor(2, "read")
        self._last_noted: dict[tuple[str, str], datetime] = {}

    def close(self) -> None:
        """Finish the work in progress."""
        self.verifier_pool.shutdown(wait=True)
        self.writer.close()

    async def handle(self, sender: Sender, request: Request, body: bytes) -> WebhookResponse:
        """Verify and store a delivery. It is acknowledged only after it is stored."""
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
            _log.warning("%s: the delivery cannot be stored: %s", sender, cause)
            return _UNAVAILABLE_RESPONSE
        except Exception:
            _log.exception("%s: internal error while handling a delivery", sender)
            return _UNAVAILABLE_RESPONSE

    def _read(
        self, sender: Sender, headers: Headers, body: bytes, now: datetime
    ) -> IncomingDelivery | UnreadableDelivery:
        rules = self.triggers.senders.get(sender)
        secrets = self.secret_store.values(rules.secrets) if rules else []
        verified = verify_delivery(sender, headers, body, secrets, now.timestamp())
        return read_delivery(self.triggers, sender, headers, body, verified, now)

    async def _note_invalid_signature(self, sender: Sender, fault: str, request: Request, now: datetime) -> None:
        """Log and note an invalid signature, each kind once per minute, so that an attacker cannot fill the disk."""
        last_noted = self._last_noted.get((sender, fault))
        if last_noted is not None and timedelta(0) <= now - last_noted < NOTE_EVERY:
            return
        self._last_noted[sender, fault] = now
        source = request.client.host if request.client else "unknown"
        _log.warning("%s: refused, from %s: %s", sender, source, fault)
        note = InboxNote(f"{sender}:", "invalid signature", f"{fault}; from {source}", now)
        try:
            await self.writer.note(note)
        except PortError as cause:
            _log.warning("the refusal could not be noted: %s", cause)


def _to_http_response(response: WebhookResponse) -> Response:
    headers = {"connection": "close"} if response.status in {408, 413} else {}
    if response.status == 503:
        headers = {"retry-after": "30"}
    return JSONResponse(response.content(), response.status, headers)

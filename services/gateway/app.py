"""The gateway's HTTP application.

It reads the body within limits, verifies its signature meanwhile, and responds after the delivery is stored in the
inbox.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from blocks.common.errors import PortError
from blocks.inbox.base import Delivery, Inbox, InboxNote, IncomingDelivery, Receipt
from deployments.secret_store import SecretStore, SecretUnavailable
from runtime.foreign_pages import ForeignPageGuard
from services.gateway.ingest import (
    INVALID_SIGNATURE_RESPONSE,
    UnreadableDelivery,
    WebhookResponse,
    claimed_id,
    read_delivery,
    response_to,
)
from services.gateway.limits import (
    BodyRejected,
    InFlightDeliveries,
    LargeBodies,
    RequestLimits,
    client_address,
    discard_body,
    read_body,
)
from services.gateway.rules.payloads import SENDERS, Sender
from services.gateway.rules.rules import Triggers
from services.gateway.signatures import Headers, InvalidSignature, Verification, VerifiedDelivery, begin_verification

_log = logging.getLogger("ratchet.gateway")

NOTE_EVERY = timedelta(minutes=1)
"""Minimum time between two notes about the same fault of deliveries that nobody has verified."""
MAX_BATCH_SIZE = 64
_CUT_REMEDY = ". `gateway missed` finds a push that is missing; `gateway serve --max-bytes` sets the limit"
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
    addresses: Sequence[str] = (),
    seal: Callable[[Delivery], Delivery] = lambda delivery: delivery,
) -> FastAPI:
    """Return the application.

    `on_accepted` is called after each new delivery; `addresses`: as `ForeignPageGuard`; `seal` signs
    a verified delivery.
    """
    bounds, deliveries = limits or RequestLimits(), in_flight or InFlightDeliveries()
    handler = _WebhookHandler(inbox, triggers, secret_store, bounds, clock, seal)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        handler.close()

    app = FastAPI(title="Ratchet gateway", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(ForeignPageGuard, addresses=addresses)
    if approvals_router is not None:
        app.include_router(approvals_router)

    @app.get("/ping")
    async def ping() -> dict[str, str]:
        return {"gateway": "up"}

    @app.post("/hooks/{name}")
    async def deliver(name: str, request: Request) -> Response:
        if (sender := SENDERS.get(name)) is None:
            raise HTTPException(404)
        with deliveries.track():
            response = await handler.handle(sender, request)
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
        self,
        inbox: Inbox,
        triggers: Triggers,
        secret_store: SecretStore,
        limits: RequestLimits,
        clock: Callable[[], datetime],
        seal: Callable[[Delivery], Delivery],
    ) -> None:
        self._seal = seal
        self.triggers, self.secret_store, self.limits, self.clock = triggers, secret_store, limits, clock
        self.writer = InboxWriter(inbox)
        self.verifier_pool = ThreadPoolExecutor(2, "read")
        self._large_bodies = LargeBodies(limits.large_bodies_bytes)
        self._last_noted: dict[tuple[str, str], datetime] = {}

    def close(self) -> None:
        """Finish the work in progress."""
        self.verifier_pool.shutdown(wait=True)
        self.writer.close()

    async def handle(self, sender: Sender, request: Request) -> WebhookResponse:
        """Verify and store a delivery. It is acknowledged only after it is stored."""
        now = self.clock()
        try:
            with self._large_bodies.reserve() as grow:
                return await self._receive(sender, request, grow, now)
        except InvalidSignature as fault:
            await self._note_refusal(InboxNote(f"{sender}:", "invalid signature", str(fault), now), request)
            return INVALID_SIGNATURE_RESPONSE
        except BodyRejected as rejected:
            name, reason = claimed_id(sender, request.scope["headers"]), f"{rejected.response.reason}{_CUT_REMEDY}"
            await self._note_refusal(InboxNote(f"{sender}:{name}", "cut", reason, now), request)
            return rejected.response
        except TimeoutError:
            return WebhookResponse(503, "unavailable", "the inbox is busy; send it again")
        except (SecretUnavailable, PortError) as cause:
            _log.warning("%s: the delivery cannot be stored: %s", sender, cause)
            return _UNAVAILABLE_RESPONSE
        except Exception:
            _log.exception("%s: internal error while handling a delivery", sender)
            return _UNAVAILABLE_RESPONSE

    async def _receive(
        self, sender: Sender, request: Request, grow: Callable[[int], None], now: datetime
    ) -> WebhookResponse:
        """Read the body unless the headers alone show that it is forged, and store the delivery when it is verified."""
        headers, loop = request.scope["headers"], asyncio.get_running_loop()
        async with asyncio.timeout(self.limits.inbox_seconds):
            try:
                verification = await loop.run_in_executor(self.verifier_pool, self._begin, sender, headers, now)
            except InvalidSignature:
                await discard_body(request, self.limits)
                raise
        body = await read_body(request, self.limits, verification.update, grow)
        verified = verification.finish()
        async with asyncio.timeout(self.limits.inbox_seconds):
            read = await loop.run_in_executor(self.verifier_pool, self._read, sender, headers, body, verified, now)
            if isinstance(read, UnreadableDelivery):
                await self.writer.note(read.note)
                return read.response
            return response_to(read, await self.writer.receive(read))

    def _read(
        self, sender: Sender, headers: Headers, body: bytes, verified: VerifiedDelivery, now: datetime
    ) -> IncomingDelivery | UnreadableDelivery:
        """Parse a verified delivery, and seal it when it may start a run. A delivery is not lost for want of a seal."""
        read = read_delivery(self.triggers, sender, headers, body, verified, now)
        if isinstance(read, UnreadableDelivery) or read.outcome is not None:
            return read
        try:
            return replace(read, delivery=self._seal(read.delivery))
        except PortError as cause:
            _log.warning("%s is not sealed, so nobody is proved: %s", read.delivery.id, cause)
            return read

    def _begin(self, sender: Sender, headers: Headers, now: datetime) -> Verification:
        rules = self.triggers.senders.get(sender)
        secrets = self.secret_store.values(rules.secrets) if rules else []
        return begin_verification(sender, headers, secrets, now.timestamp())

    async def _note_refusal(self, note: InboxNote, request: Request) -> None:
        """Log and note what nobody has verified, each fault once per minute: an attacker cannot fill the disk."""
        fault = (note.subject_id.partition(":")[0], note.text)
        last_noted = self._last_noted.get(fault)
        if last_noted is not None and abs(note.at - last_noted) < NOTE_EVERY:  # large bodies end out of order
            return
        self._last_noted[fault] = note.at
        source = client_address(request)
        _log.warning("%s: refused, from %s: %s", fault[0], source, note.text)
        try:
            await self.writer.note(replace(note, text=f"{note.text}; from {source}"))
        except PortError as cause:
            _log.warning("the refusal could not be noted: %s", cause)


class InboxWriter:
    """Writes arrivals to the inbox from one thread; several writers would only wait for SQLite's lock.

    Arrivals that come together share one transaction and one disk flush. Without this group commit, a disk with a 20 ms
    flush would limit the gateway to 50 deliveries per second.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._thread = ThreadPoolExecutor(1, "inbox")
        self._queue: list[tuple[IncomingDelivery, asyncio.Future[Receipt]]] = []
        self._draining: asyncio.Task[None] | None = None

    async def receive(self, arrival: IncomingDelivery) -> Receipt:
        """Store an arrival and return its receipt. Raises PortError; then the arrival is not in the inbox."""
        loop = asyncio.get_running_loop()
        receipt: asyncio.Future[Receipt] = loop.create_future()
        self._queue.append((arrival, receipt))
        if self._draining is None or self._draining.done():
            self._draining = loop.create_task(self._drain())
        return await receipt

    async def note(self, note: InboxNote) -> None:
        """Store a note. Raises PortError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._inbox.add_note, note)

    def close(self) -> None:
        """Finish the work in progress."""
        self._thread.shutdown(wait=True)

    async def _drain(self) -> None:
        while self._queue:
            batch, self._queue = self._queue[:MAX_BATCH_SIZE], self._queue[MAX_BATCH_SIZE:]
            await self._write([(arrival, receipt) for arrival, receipt in batch if not receipt.done()])

    async def _write(self, batch: list[tuple[IncomingDelivery, asyncio.Future[Receipt]]]) -> None:
        """Write a batch. If it fails, write each item separately, so that one bad item does not fail the others."""
        arrivals = [arrival for arrival, _ in batch]
        try:
            work = asyncio.get_running_loop().run_in_executor(self._thread, self._inbox.receive_all, arrivals)
            receipts = await work
        except PortError as cause:
            if len(batch) > 1:
                for each in batch:
                    await self._write([each])
            elif not batch[0][1].done():
                batch[0][1].set_exception(cause)
            return
        except Exception as cause:
            for _, future in batch:
                if not future.done():
                    future.set_exception(cause)
            return
        for (_, future), stored in zip(batch, receipts, strict=True):
            if not future.done():
                future.set_result(stored)


def _to_http_response(response: WebhookResponse) -> Response:
    headers = {"connection": "close"} if response.status in {401, 408, 413} else {}
    if response.status == 503:
        headers = {"retry-after": "30"}
    return JSONResponse(response.content(), response.status, headers)

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
from deployments.secret_store import Unreadable, Vault
from services.gateway.body import Cut, Limits, read_body
from services.gateway.inbox_writer import Writer
from services.gateway.ingest import NOT_GENUINE, Answer, Unread, answer_to, read_delivery
from services.gateway.rules.payloads import Sender
from services.gateway.rules.rules import Triggers
from services.gateway.signatures import Forged, Headers, verify
from services.gateway.traffic import Traffic

_log = logging.getLogger("ratchet.gateway")

__all__ = ["Limits", "application"]

NOTE_EVERY = timedelta(minutes=1)
"""How often a forgery of one kind is noted, at most."""
SENDERS: Mapping[str, Sender] = {name: name for name in get_args(Sender)}


def application(
    inbox: Inbox,
    triggers: Triggers,
    vault: Vault,
    limits: Limits | None = None,
    woken: Callable[[], None] = lambda: None,
    traffic: Traffic | None = None,
    desk: APIRouter | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> FastAPI:
    """Return the server.

    `woken` is called when something new waits in the inbox; `traffic` is told who comes; `desk` is where people decide;
    `clock` says when a delivery comes.
    """
    within, hook, seen = limits or Limits(), _Hook(inbox, triggers, vault, clock), traffic or Traffic()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        hook.close()

    app = FastAPI(title="Ratchet gateway", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    if desk is not None:
        app.include_router(desk)

    @app.get("/ping")
    async def ping() -> dict[str, str]:
        return {"gateway": "up"}

    @app.post("/hooks/{name}")
    async def deliver(name: str, request: Request) -> Response:
        if (sender := SENDERS.get(name)) is None:
            raise HTTPException(404)
        try:
            with seen.delivery():
                body = await read_body(request, within)
                async with asyncio.timeout(within.inbox_seconds):
                    answer = await hook.take(sender, request, body)
        except Cut as cut:
            answer = cut.answer
        except TimeoutError:
            answer = Answer(503, "not taken", "the inbox is busy; send it again")
        if answer.status == 202:
            woken()
        return _response(answer)

    @app.exception_handler(HTTPException)
    async def no_such_call(_: Request, cause: HTTPException) -> Response:
        return _response(Answer(cause.status_code, "refused", str(cause.detail)))

    return app


class _Hook:
    """Verifies and reads deliveries side by side, and hands what is genuine to the writer: no forgery waits there."""

    def __init__(self, inbox: Inbox, triggers: Triggers, vault: Vault, clock: Callable[[], datetime]) -> None:
        self.triggers, self.vault, self.clock = triggers, vault, clock
        self.writer = Writer(inbox)
        self.readers = ThreadPoolExecutor(2, "read")
        self._noted: dict[tuple[str, str], datetime] = {}

    def close(self) -> None:
        """Let what was begun end."""
        self.readers.shutdown(wait=True)
        self.writer.close()

    async def take(self, sender: Sender, request: Request, body: bytes) -> Answer:
        """Verify and store; whatever goes wrong, nothing is acknowledged that is not stored."""
        headers, now, loop = request.scope["headers"], self.clock(), asyncio.get_running_loop()
        try:
            read = await loop.run_in_executor(self.readers, self._read, sender, headers, body, now)
            if isinstance(read, Unread):
                await self.writer.note(read.note)
                return read.answer
            return answer_to(read, await self.writer.receive(read))
        except Forged as fault:
            await self._tell(sender, str(fault), request, now)
            return NOT_GENUINE
        except (Unreadable, PortError) as cause:
            _log.warning("%s: not taken: %s", sender, cause)
            return Answer(503, "not taken", "it cannot be taken in just now; send it again")
        except Exception:
            _log.exception("%s: a delivery met an error of ours", sender)
            return Answer(503, "not taken", "it cannot be taken in just now; send it again")

    def _read(self, sender: Sender, headers: Headers, body: bytes, now: datetime) -> Arrival | Unread:
        rules = self.triggers.senders.get(sender)
        secrets = self.vault.values(rules.secrets) if rules else []
        proof = verify(sender, headers, body, secrets, now.timestamp())
        return read_delivery(self.triggers, sender, headers, body, proof, now)

    async def _tell(self, sender: Sender, fault: str, request: Request, now: datetime) -> None:
        """Log and note a forgery, each kind at most once a minute: who forges must not fill the disk."""
        before = self._noted.get((sender, fault))
        if before is not None and timedelta(0) <= now - before < NOTE_EVERY:
            return
        self._noted[sender, fault] = now
        source = request.client.host if request.client else "unknown"
        _log.warning("%s: refused, from %s: %s", sender, source, fault)
        note = Note(f"{sender}:", "forged", f"{fault}; from {source}", now)
        try:
            await self.writer.note(note)
        except PortError as cause:
            _log.warning("the refusal could not be noted: %s", cause)


def _response(answer: Answer) -> Response:
    headers = {"connection": "close"} if answer.status in {408, 413} else {}
    if answer.status == 503:
        headers = {"retry-after": "30"}
    return JSONResponse(answer.content(), answer.status, headers)

"""Limits of the gateway: size and time of request bodies, a timeout for headers, and deliveries in flight."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastapi import Request
from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.gateway.ingest import WebhookResponse
from services.gateway.rules.changes import MAX_BODY_BYTES

SMALL_BODY_BYTES = 1_048_576
"""Up to this size a body is received whatever the memory that others use: MAX_CONNECTIONS bounds them."""
DISCARDED_BYTES = 4 * 1_048_576
"""How much of a refused body is read and discarded, so that the sender can receive the response."""


@dataclass(frozen=True)
class RequestLimits:
    """Limits of one delivery: bytes of its body, seconds to receive the body, seconds to store it in the inbox.

    `large_bodies_bytes` limits the memory of all bodies above SMALL_BODY_BYTES together.
    """

    body_bytes: int = MAX_BODY_BYTES
    body_seconds: float = 10.0
    inbox_seconds: float = 8.0
    large_bodies_bytes: int = 5 * MAX_BODY_BYTES


def client_address(request: Request) -> str:
    """Return the address of the client, by which failed attempts are counted and which the log names."""
    return request.client.host if request.client else "unknown"


class BodyRejected(Exception):
    """The request body was rejected (too large, too slow, incomplete, or no memory is left for it).

    `response` is the response for the sender.
    """

    def __init__(self, status: int, reason: str) -> None:
        outcome = "unavailable" if status == 503 else "refused"
        self.response = WebhookResponse(status, outcome, reason)


class LargeBodies:
    """Counts the bytes of the large bodies in memory. Only the event loop uses it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._total = 0

    @contextmanager
    def reserve(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that is called with the size of a body whenever it grows; the end frees its memory.

        It raises BodyRejected when all large bodies together would become larger than the limit.
        """
        reserved = 0

        def grow(size: int) -> None:
            nonlocal reserved
            more = size - reserved if size > SMALL_BODY_BYTES else 0
            if self._total + more > self._limit:
                raise BodyRejected(503, "too many large deliveries at once; send it again")
            self._total, reserved = self._total + more, reserved + more

        try:
            yield grow
        finally:
            self._total -= reserved


async def read_body(
    request: Request,
    limits: RequestLimits,
    observe: Callable[[bytes], None] = lambda chunk: None,
    grow: Callable[[int], None] = lambda size: None,
) -> bytes:
    """Return the body. `observe` gets each piece of it as it arrives, `grow` its size so far.

    Raises:
        BodyRejected: the body is too large, too slow, or incomplete because the sender closed the connection.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limits.body_bytes:
                    chunks.clear()
                    if size > limits.body_bytes + DISCARDED_BYTES:
                        break
                    continue
                grow(size)
                observe(chunk)
                chunks.append(chunk)
    except TimeoutError:
        raise BodyRejected(408, f"the body took longer than {limits.body_seconds:g} s") from None
    except ClientDisconnect:
        raise BodyRejected(400, "the body is incomplete") from None
    if size > limits.body_bytes:
        raise BodyRejected(413, f"the body is larger than {limits.body_bytes:,} bytes")
    return b"".join(chunks)


async def discard_body(request: Request, limits: RequestLimits) -> None:
    """Read the beginning of a body that is refused, so that the sender can receive the response.

    Raises:
        BodyRejected: the body is too slow.
    """
    size = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > DISCARDED_BYTES:
                    return
    except TimeoutError:
        raise BodyRejected(408, f"the body took longer than {limits.body_seconds:g} s") from None
    except ClientDisconnect:
        return


HEADER_TIMEOUT_SECONDS = 10.0
"""Seconds after which a connection is closed that has not sent all headers of its request."""


class HeaderTimeoutProtocol(HttpToolsProtocol):
    """Closes connections that never send the complete headers of a request."""

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn itself
        """Start the timer."""
        super().connection_made(transport)
        self._start_timer()

    def on_message_begin(self) -> None:
        """Restart the timer: one connection can carry several requests."""
        super().on_message_begin()
        self._start_timer()

    def on_headers_complete(self) -> None:
        """Stop the timer: the body has its own time limit."""
        self._cancel_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._cancel_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        self._cancel_timer()
        self._header_timer = self.loop.call_later(HEADER_TIMEOUT_SECONDS, self._close_connection)

    def _cancel_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _close_connection(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


BUSY_AFTER_RESPONSE_SECONDS = 0.2
MAX_WAIT_SECONDS = 1.0
"""Maximum seconds that background work waits. Under constant load it still runs about once per second."""


class InFlightDeliveries:
    """Counts the deliveries in flight. Only the event loop changes the count; other threads read it.

    `clock` returns seconds, `pause` sleeps for some.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock, self._pause = clock, pause
        self._count = 0
        self._last_response_at = -BUSY_AFTER_RESPONSE_SECONDS

    @contextmanager
    def track(self) -> Iterator[None]:
        """Count one delivery as in flight during the block."""
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            self._last_response_at = self._clock()

    def is_busy(self) -> bool:
        """Whether a delivery is in flight, or was responded to a moment ago."""
        return self._count > 0 or self._clock() - self._last_response_at < BUSY_AFTER_RESPONSE_SECONDS

    def wait_until_idle(self) -> None:
        """Wait while deliveries are in flight, for at most one second."""
        deadline = self._clock() + MAX_WAIT_SECONDS
        while self.is_busy() and self._clock() < deadline:
            self._pause(0.05)

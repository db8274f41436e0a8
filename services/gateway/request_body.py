"""Bodies of requests, whoever sends them: read up to a size and a time, never longer."""

import asyncio
from dataclasses import dataclass

from fastapi import Request
from starlette.requests import ClientDisconnect

from services.gateway.ingest import WebhookResponse


@dataclass(frozen=True)
class RequestLimits:
    """What a delivery may cost: bytes of its body, seconds to send it, seconds until the inbox has it."""

    body_bytes: int = 1_048_576
    body_seconds: float = 10.0
    inbox_seconds: float = 8.0


class BodyRejected(Exception):
    """A body is not read to its end; `response` is what its sender is told."""

    def __init__(self, answer: WebhookResponse) -> None:
        self.response = answer


async def read_body(request: Request, limits: RequestLimits) -> bytes:
    """Return the body. One that is too large is read on a while, so that its sender gets the answer.

    Raises:
        Cut: it is too large, too slow, or its sender hung up.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limits.body_bytes:
                    chunks.append(chunk)
                elif size > 4 * limits.body_bytes:
                    break
    except TimeoutError:
        raise BodyRejected(
            WebhookResponse(408, "refused", f"the body took longer than {limits.body_seconds:g} s")
        ) from None
    except ClientDisconnect:
        raise BodyRejected(WebhookResponse(400, "refused", "the body is not whole")) from None
    if size > limits.body_bytes:
        raise BodyRejected(WebhookResponse(413, "refused", f"the body is larger than {limits.body_bytes:,} bytes"))
    return b"".join(chunks)

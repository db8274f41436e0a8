"""Group commit for the inbox: deliveries that arrive together share one transaction and one disk flush.

Without it, a disk with a 20 ms flush would limit the gateway to 50 deliveries per second.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from blocks.common.errors import PortError
from blocks.inbox.base import Inbox, InboxNote, IncomingDelivery, Receipt

MAX_BATCH_SIZE = 64


class InboxWriter:
    """Writes arrivals to the inbox from one thread; several writers would only wait for SQLite's lock."""

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

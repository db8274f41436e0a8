"""Writes what arrives at the same time into the inbox together: one flush of the disk for all of them.

A disk that takes 20 ms to flush would otherwise bear 50 deliveries a second, and each would wait for those before.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from blocks.common.errors import PortError
from blocks.inbox.base import Arrival, Inbox, Note, Receipt

MAX_BATCH_SIZE = 64


class InboxWriter:
    """Hands arrivals to the inbox from one thread: writers side by side would only wait for SQLite's lock."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._thread = ThreadPoolExecutor(1, "inbox")
        self._queue: list[tuple[Arrival, asyncio.Future[Receipt]]] = []
        self._draining: asyncio.Task[None] | None = None

    async def receive(self, arrival: Arrival) -> Receipt:
        """Return the receipt once the arrival is on disk. Raises PortError; then it is not in the inbox."""
        loop = asyncio.get_running_loop()
        receipt: asyncio.Future[Receipt] = loop.create_future()
        self._queue.append((arrival, receipt))
        if self._draining is None or self._draining.done():
            self._draining = loop.create_task(self._drain())
        return await receipt

    async def note(self, note: Note) -> None:
        """Write something down. Raises PortError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._inbox.note, note)

    def close(self) -> None:
        """Let what was begun end."""
        self._thread.shutdown(wait=True)

    async def _drain(self) -> None:
        while self._queue:
            batch, self._queue = self._queue[:MAX_BATCH_SIZE], self._queue[MAX_BATCH_SIZE:]
            await self._write([(arrival, receipt) for arrival, receipt in batch if not receipt.done()])

    async def _write(self, batch: list[tuple[Arrival, asyncio.Future[Receipt]]]) -> None:
        """Write a batch; one that fails is written one by one, so that none suffers for another."""
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
            for _, receipt in batch:
                if not receipt.done():
                    receipt.set_exception(cause)
            return
        for (_, receipt), made in zip(batch, receipts, strict=True):
            if not receipt.done():
                receipt.set_result(made)

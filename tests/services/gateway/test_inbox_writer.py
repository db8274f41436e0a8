"""The inbox writer: concurrent deliveries are written together, and a bad one does not harm the others."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from blocks.common.errors import Rejected, Unavailable
from blocks.inbox.base import Delivery, IncomingDelivery, Receipt
from blocks.inbox.fake import FakeInbox
from services.gateway.app import MAX_BATCH_SIZE, InboxWriter
from services.gateway.limits import BUSY_AFTER_RESPONSE_SECONDS, MAX_WAIT_SECONDS, InFlightDeliveries
from tests.fixtures.clocks import Clock

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
PUSH = Delivery("github:0", "github", "push", "acme/models", "main", "c" * 40, "d", "{}", NOW)


class CountingInbox(FakeInbox):
    """Counts the deliveries of each write; refuses a delivery named `bad`, and with it all of the same write."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def receive_all(self, arrivals: Sequence[IncomingDelivery]) -> tuple[Receipt, ...]:
        self.sizes.append(len(arrivals))
        if any(arrival.delivery.event == "bad" for arrival in arrivals):
            raise Rejected("the database refuses it")
        return super().receive_all(arrivals)


def arrivals(count: int, bad: Sequence[int] = ()) -> list[IncomingDelivery]:
    given = (replace(PUSH, id=f"github:{n}", digest=f"{n}", event="bad" if n in bad else "push") for n in range(count))
    return [IncomingDelivery(delivery) for delivery in given]


def written(inbox: FakeInbox, given: Sequence[IncomingDelivery]) -> list[Receipt | BaseException]:
    async def all_at_once() -> list[Receipt | BaseException]:
        writer = InboxWriter(inbox)
        try:
            return await asyncio.gather(*(writer.receive(each) for each in given), return_exceptions=True)
        finally:
            writer.close()

    return asyncio.run(all_at_once())


def test_a_hundred_at_the_same_time_are_two_writes() -> None:
    inbox = CountingInbox()
    receipts = written(inbox, arrivals(100))
    assert [receipt.recorded.id for receipt in receipts if isinstance(receipt, Receipt)] == [
        f"github:{n}" for n in range(100)
    ]
    assert inbox.sizes == [MAX_BATCH_SIZE, 100 - MAX_BATCH_SIZE]


def test_what_is_refused_takes_nobody_along() -> None:
    inbox = CountingInbox()
    outcomes = written(inbox, arrivals(5, bad=[3]))
    assert [type(outcome) for outcome in outcomes] == [Receipt, Receipt, Receipt, Rejected, Receipt]
    assert len(inbox.pending_attempts()) == 4


def test_a_batch_that_fails_in_passing_is_in_the_inbox_or_told() -> None:
    outcomes = written(FakeInbox(fail_writes=1), arrivals(3))
    assert [type(outcome) for outcome in outcomes] == [Receipt] * 3
    outcomes = written(FakeInbox(fail_writes=99), arrivals(3))
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3


@pytest.mark.parametrize("seconds", [0.0, 0.02])
def test_who_gave_up_waiting_does_not_stop_the_others(seconds: float) -> None:
    async def one_gives_up() -> list[Receipt | BaseException]:
        writer = InboxWriter(FakeInbox())
        first, *others = (asyncio.ensure_future(writer.receive(each)) for each in arrivals(4))
        await asyncio.sleep(seconds)
        first.cancel()
        found = await asyncio.gather(*others, return_exceptions=True)
        writer.close()
        return found

    assert [type(outcome) for outcome in asyncio.run(one_gives_up())] == [Receipt] * 3


def test_what_is_not_urgent_gives_way_to_the_door_but_not_for_ever() -> None:
    clock = Clock()
    traffic = InFlightDeliveries(clock, clock.sleep)
    assert not traffic.is_busy()
    with traffic.track():
        assert traffic.is_busy()
        assert MAX_WAIT_SECONDS <= took(clock, traffic.wait_until_idle) < MAX_WAIT_SECONDS + 0.1
    assert traffic.is_busy(), "one was answered just now"
    assert BUSY_AFTER_RESPONSE_SECONDS <= took(clock, traffic.wait_until_idle) < BUSY_AFTER_RESPONSE_SECONDS + 0.1
    assert not traffic.is_busy()


def took(clock: Clock, work: Callable[[], None]) -> float:
    begun = clock()
    work()
    return clock() - begun

"""How busy the door is: what is not urgent gives way to those who wait for an answer."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BUSY_AFTER_RESPONSE_SECONDS = 0.2
MAX_WAIT_SECONDS = 1.0
"""What gives way goes on after so long, whatever comes in: runs start at a second's distance, but they start."""


class InFlightDeliveries:
    """Counts the deliveries in hand. The event loop alone changes it; other threads look.

    `clock` tells seconds, and `pause` lets some go by.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock, self._pause = clock, pause
        self._count = 0
        self._last_response_at = -BUSY_AFTER_RESPONSE_SECONDS

    @contextmanager
    def track(self) -> Iterator[None]:
        """A delivery is in hand."""
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            self._last_response_at = self._clock()

    def is_busy(self) -> bool:
        """Whether a delivery is in hand, or was answered just now."""
        return self._count > 0 or self._clock() - self._last_response_at < BUSY_AFTER_RESPONSE_SECONDS

    def wait_until_idle(self) -> None:
        """Wait while the door is busy, for a second at most."""
        deadline = self._clock() + MAX_WAIT_SECONDS
        while self.is_busy() and self._clock() < deadline:
            self._pause(0.05)

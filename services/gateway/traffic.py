"""How busy the door is: what is not urgent gives way to those who wait for an answer."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

QUIET_SECONDS = 0.2
LONGEST_SECONDS = 1.0
"""What gives way goes on after so long, whatever comes in: runs start at a second's distance, but they start."""


class Traffic:
    """Counts the deliveries in hand. The event loop alone changes it; other threads look.

    `clock` tells seconds, and `pause` lets some go by.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock, self._pause = clock, pause
        self._in_hand = 0
        self._last = -QUIET_SECONDS

    @contextmanager
    def delivery(self) -> Iterator[None]:
        """A delivery is in hand."""
        self._in_hand += 1
        try:
            yield
        finally:
            self._in_hand -= 1
            self._last = self._clock()

    def busy(self) -> bool:
        """Whether a delivery is in hand, or was answered just now."""
        return self._in_hand > 0 or self._clock() - self._last < QUIET_SECONDS

    def give_way(self) -> None:
        """Wait while the door is busy, for a second at most."""
        deadline = self._clock() + LONGEST_SECONDS
        while self.busy() and self._clock() < deadline:
            self._pause(0.05)

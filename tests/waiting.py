"""Wait for an event elsewhere: as long as the slowest machine needs, and hardly longer than the event takes."""

import time
from collections.abc import Callable
from typing import Any


def wait_for(seen: Callable[[], Any], seconds: float = 120, what: str = "it") -> Any:
    """Call `seen` again and again, at first every hundredth of a second, until it returns something true; return that.

    Raises:
        AssertionError: it did not happen in time.
    """
    deadline, pause = time.monotonic() + seconds, 0.01
    while time.monotonic() < deadline:
        if found := seen():
            return found
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)
    raise AssertionError(f"{what} did not happen within {seconds} s")

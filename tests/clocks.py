"""A clock that stands still until a test lets time go by: what depends on time then never depends on the machine."""


class Clock:
    """Tells seconds, as `time.monotonic` does; who sleeps by it moves it on."""

    def __init__(self, at: float = 1_000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        """Let so many seconds go by, at once."""
        self.at += seconds

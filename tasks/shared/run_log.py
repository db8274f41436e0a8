"""Send the log lines of this process's flow run where the environment keeps them, beside Prefect's own log.

A line is handed over in memory and the run goes on; one thread sends what waits, once a second. Nothing of this fails
or holds up a run: what finds no room, or cannot be sent until the process ends, is dropped, counted, and said.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from blocks.common.errors import PortError, TransientError
from blocks.logs.base import LogLine, RunLogs

LOGGERS = ("prefect.flow_runs", "prefect.task_runs")
"""Where Prefect writes what flows and tasks say."""
OWN = "ratchet_own"
"""What marks our own word in Prefect's log: it is not sent."""
_log = logging.getLogger("ratchet.run_log")


@dataclass(frozen=True)
class Limits:
    """How much may wait, how often and in what portions it is sent, and how long the end of a process may wait."""

    lines: int = 20_000
    bytes: int = 16 << 20
    seconds: float = 1.0
    portion: int = 2_000
    after_failure_seconds: float = 5.0
    at_end_seconds: float = 5.0


class RunLogHandler(logging.Handler):
    """Sends the lines of one flow run; others' pass by. `run` names it where they are kept.

    `tell` is called once, when lines cannot be sent: where a person sees it who looks at the run.
    """

    def __init__(
        self, logs: RunLogs, run: str, flow_run: str, tell: Callable[[str], None], limits: Limits = Limits()
    ) -> None:
        super().__init__()
        self.run, self.flow_run, self.limits = run, flow_run, limits
        self._tell = tell
        self.sent, self.dropped, self.problem = 0, 0, ""
        self._logs, self._told = logs, 0
        self._waiting: deque[LogLine] = deque()
        self._held = 0
        self._guard, self._sending = threading.Lock(), threading.Lock()
        self._wake, self._ended = threading.Event(), threading.Event()
        self._refused = False
        self._thread = threading.Thread(target=self._work, name="run-log", daemon=True)
        self._thread.start()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is of this flow run, and not our own word on what cannot be sent."""
        return str(getattr(record, "flow_run_id", "")) == self.flow_run and not hasattr(record, OWN)

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line over; it is dropped when there is no room. Never waits, never fails."""
        try:
            line = LogLine(record.created, self._said(record))
        except Exception as cause:  # a message whose arguments do not fit it
            self._drop(1, f"it cannot be written: {type(cause).__name__}: {cause}")
            return
        size = len(line.text)
        with self._guard:
            full = len(self._waiting) >= self.limits.lines or self._held + size > self.limits.bytes
            if not full and not self._refused:
                self._waiting.append(line)
                self._held += size
                return
        self._drop(1, self.problem or "more lines wait than there is room for")

    def flush(self) -> None:
        """Let what waits be sent soon; `close` waits for it."""
        self._wake.set()

    def close(self) -> None:
        """Send what is left, for `at_end_seconds` at most, and say what was dropped. Called when the process ends."""
        if not self._ended.is_set():
            self._ended.set()
            self._wake.set()
            self._thread.join(self.limits.at_end_seconds)
            with self._guard:
                left = len(self._waiting)
                self._waiting.clear()
            if left:
                self._drop(left, self.problem or f"the process ended before they were sent ({self.limits})")
            if self.dropped:
                _log.warning("%d log lines of %s were not kept: %s", self.dropped, self.run, self.problem)
        super().close()

    def _said(self, record: logging.LogRecord) -> str:
        task = getattr(record, "task_run_name", "")
        where = f"{task}: " if task else ""
        text = f"{record.levelname} {where}{record.getMessage()}"
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        return text

    def _work(self) -> None:
        failed_at = float("-inf")
        while not (self._ended.is_set() and not self._waiting):
            self._wake.wait(self.limits.seconds)
            self._wake.clear()
            if self._ended.is_set() or time.monotonic() - failed_at >= self.limits.after_failure_seconds:
                failed_at = failed_at if self._send_waiting() else time.monotonic()

    def _send_waiting(self) -> bool:
        """Send what waits in portions; return whether all of it went."""
        while self._waiting:
            with self._guard:
                portion = [self._waiting[place] for place in range(min(len(self._waiting), self.limits.portion))]
            try:
                self._logs.send(self.run, [*self._gap(), *portion])
            except TransientError as problem:
                self._fail(str(problem))
                return False
            except (PortError, Exception) as problem:
                self._fail(str(problem))
                self._refused = True
                self._drop(self._take(len(portion)), str(problem))
                continue
            self._take(len(portion))
            self.sent += len(portion)
            self._told = self.dropped
        return True

    def _gap(self) -> Sequence[LogLine]:
        """Return a line that says how many are missing here, when some are since the last."""
        missing = self.dropped - self._told
        return [LogLine(time.time(), f"WARNING {missing} lines were dropped here: {self.problem}")] if missing else []

    def _take(self, count: int) -> int:
        with self._guard:
            count = min(count, len(self._waiting))
            for _ in range(count):
                self._held -= len(self._waiting.popleft().text)
        return count

    def _drop(self, count: int, why: str) -> None:
        with self._guard:
            self.dropped += count
            self.problem = self.problem or why

    def _fail(self, problem: str) -> None:
        first, self.problem = not self.problem, problem
        if first:
            with suppress(Exception):  # Prefect's handlers may be gone already
                self._tell(f"log lines do not reach their place, but for Prefect's own log: {problem}")


def attach(
    logs: RunLogs, run: str, flow_run: str, tell: Callable[[str], None], limits: Limits = Limits()
) -> Callable[[], None]:
    """Begin to send what this flow run says, unless that is done already; return what ends it."""
    for name in LOGGERS:
        known = [each for each in logging.getLogger(name).handlers if isinstance(each, RunLogHandler)]
        if any(each.flow_run == flow_run for each in known):
            return lambda: None
    handler = RunLogHandler(logs, run, flow_run, tell, limits)
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)

    def detach() -> None:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(handler)
        handler.close()

    return detach

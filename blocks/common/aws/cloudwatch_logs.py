"""A logging handler that sends the log lines of a flow run to CloudWatch, in addition to Prefect's own log.

Lines are buffered in memory, and one thread sends them once a second. The handler never fails or delays a run: a line
that does not fit into the buffer, or cannot be sent before the process ends, is dropped, and the loss is reported.
"""

import concurrent.futures.thread  # noqa: F401 - boto3 needs it, and it cannot be imported while the process ends
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from blocks.common.aws.clients import aws_client, port_errors
from blocks.common.errors import TransientError

LOGGERS = ("prefect.flow_runs", "prefect.task_runs")
"""Prefect's loggers of flows and tasks."""
OWN = "ratchet_not_forwarded"
"""Attribute of this handler's own records in Prefect's log, which are not sent."""
MAX_BATCH_EVENTS = 10_000
MAX_BATCH_BYTES = 1_048_576
EVENT_OVERHEAD_BYTES = 26
"""What CloudWatch adds to the size of each event. All three are its limits for one call."""
MAX_EVENT_BYTES = 250_000
"""Maximum size of the text of one event; a longer text is cut."""
MAX_BATCH_SPAN_SECONDS = 23 * 3600.0
"""A call may not span more than 24 hours."""
_log = logging.getLogger("ratchet.run_log")


@dataclass(frozen=True)
class LogLine:
    """One log record: a line, or several (a traceback). `at` is in seconds since 1970, as in `time.time()`."""

    at: float
    text: str


Send = Callable[[str, Sequence[LogLine]], None]
"""Sends lines of a run, like `LogGroup.send`. After a TransientError the same lines are sent again."""


class LogGroup(BaseModel):
    """An existing log group (Terraform creates it, with its retention). A missing one is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: str = Field(description="Name of an existing log group, such as /ratchet/production.")
    region: str | None = Field(default=None, description="AWS region; boto3's own choice when none.")
    endpoint_url: str | None = Field(default=None, description="Another address than AWS: the local SageMaker's.")

    def send(self, run: str, lines: Sequence[LogLine]) -> None:
        """Write lines to the stream of a run, in as many calls as CloudWatch's limits require, within seconds.

        Args:
            run: path that names the stream: `retrain/<id>`.
            lines: the next lines of the run. CloudWatch may store lines twice that are sent twice.

        Raises:
            TransientError: CloudWatch did not respond, or is busy.
            TerminalError: CloudWatch will never accept them: a permission, the group or the request is wrong.
        """
        with port_errors(f"sending {len(lines)} log lines to {self.group}"):
            logs = aws_client("logs", self.region, self.endpoint_url, short_timeout=True)
            stream = {"logGroupName": self.group, "logStreamName": run.replace(":", "-").replace("*", "-")}
            for batch in event_batches(lines):
                try:
                    logs.put_log_events(**stream, logEvents=batch)
                except logs.exceptions.ResourceNotFoundException:  # these are the run's first lines
                    with suppress(logs.exceptions.ResourceAlreadyExistsException):
                        logs.create_log_stream(**stream)
                    logs.put_log_events(**stream, logEvents=batch)


def event_batches(lines: Sequence[LogLine]) -> Iterator[list[dict[str, Any]]]:
    """Yield the events of one call each, ordered by time as CloudWatch requires."""
    batch: list[dict[str, Any]] = []
    size = 0
    for line in sorted(lines, key=lambda each: each.at):
        event, needed = _event(line)
        too_long = batch and line.at * 1000 - batch[0]["timestamp"] > MAX_BATCH_SPAN_SECONDS * 1000
        if batch and (len(batch) == MAX_BATCH_EVENTS or size + needed > MAX_BATCH_BYTES or too_long):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += needed
    if batch:
        yield batch


def _event(line: LogLine) -> tuple[dict[str, Any], int]:
    text = line.text.encode(errors="replace")
    if len(text) > MAX_EVENT_BYTES:
        text = text[:MAX_EVENT_BYTES] + f" … cut: {len(text):,} bytes".encode()
    shown = text.decode(errors="ignore") or " "  # an empty message is refused
    return {"timestamp": int(line.at * 1000), "message": shown}, len(shown.encode()) + EVENT_OVERHEAD_BYTES


@dataclass(frozen=True)
class Limits:
    """Limits of the buffer, the interval and size of a send, and the maximum wait at the end of a process."""

    lines: int = 20_000
    bytes: int = 16 << 20
    seconds: float = 1.0
    portion: int = 2_000
    retry_seconds: float = 5.0
    at_end_seconds: float = 5.0


class RunLogHandler(logging.Handler):
    """Sends the lines of one flow run and ignores those of others. `run` names the stream.

    `warn` is called once if lines cannot be sent; it should log where people see it who look at the run.
    """

    def __init__(
        self, send: Send, run: str, flow_run: str, warn: Callable[[str], None], limits: Limits = Limits()
    ) -> None:
        super().__init__()
        self.run, self.flow_run, self.limits = run, flow_run, limits
        self.sent, self.dropped, self.problem = 0, 0, ""
        self._send, self._warn = send, warn
        self._waiting: deque[LogLine] = deque()
        self._size, self._refused = 0, False
        self._unreported_drops = 0  # lines dropped since the last send
        self._guard, self._wake, self._ended = threading.Lock(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="run-log", daemon=True)
        self._thread.start()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record belongs to this flow run and is not this handler's own report."""
        return str(getattr(record, "flow_run_id", "")) == self.flow_run and not hasattr(record, OWN)

    def emit(self, record: logging.LogRecord) -> None:
        """Add a line to the buffer, or drop it if the buffer is full. Never waits, never fails."""
        try:
            line = LogLine(record.created, _text(record))
        except Exception as cause:  # a message whose arguments do not fit it
            self._drop(1, f"it cannot be formatted: {type(cause).__name__}: {cause}")
            return
        size = len(line.text)
        with self._guard:
            if not self._refused and len(self._waiting) < self.limits.lines and self._size + size <= self.limits.bytes:
                self._waiting.append(line)
                self._size += size
                return
        self._drop(1, self.problem or "the buffer is full")

    def close(self) -> None:
        """Send the rest, for at most `at_end_seconds`, and log how many lines were dropped. Called at exit."""
        if not self._ended.is_set():
            self._ended.set()
            self._wake.set()
            self._thread.join(self.limits.at_end_seconds)
            self._drop(self._dequeue(len(self._waiting)), f"the process ended before they were sent ({self.limits})")
            if self.dropped:
                _log.warning("%d log lines of %s were not stored: %s", self.dropped, self.run, self.problem)
        super().close()

    def _work(self) -> None:
        failed_at = float("-inf")
        while not (self._ended.is_set() and not self._waiting):
            self._wake.wait(self.limits.seconds)
            self._wake.clear()
            if self._ended.is_set() or time.monotonic() - failed_at >= self.limits.retry_seconds:
                failed_at = failed_at if self._send_waiting() else time.monotonic()

    def _send_waiting(self) -> bool:
        """Send the buffer in portions; return whether all of it was sent."""
        while self._waiting:
            with self._guard:
                portion, gap = list(islice(self._waiting, self.limits.portion)), self._unreported_drops
            missing = f"WARNING {gap} lines were dropped here: {self.problem}"
            try:
                self._send(self.run, [*([LogLine(time.time(), missing)] if gap else []), *portion])
            except TransientError as problem:
                self._report_failure(str(problem))
                return False
            except Exception as problem:
                self._report_failure(str(problem))
                self._refused = True
                self._drop(self._dequeue(len(portion)), str(problem))
                continue
            self.sent += self._dequeue(len(portion))
            with self._guard:
                self._unreported_drops -= gap
        return True

    def _dequeue(self, count: int) -> int:
        with self._guard:
            taken = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
            self._size -= sum(len(line.text) for line in taken)
        return len(taken)

    def _drop(self, count: int, reason: str) -> None:
        with self._guard:
            self.dropped += count
            self._unreported_drops += count
            self.problem = self.problem or (reason if count else "")

    def _report_failure(self, problem: str) -> None:
        first, self.problem = not self.problem, problem
        if first:
            with suppress(Exception):  # Prefect's handlers may be closed already
                self._warn(f"log lines are in Prefect's own log only, and not in CloudWatch: {problem}")


def _text(record: logging.LogRecord) -> str:
    task = getattr(record, "task_run_name", "")
    text = f"{record.levelname} {f'{task}: ' if task else ''}{record.getMessage()}"
    return f"{text}\n{logging.Formatter().formatException(record.exc_info)}" if record.exc_info else text


def attach(
    send: Send, run: str, flow_run: str, warn: Callable[[str], None], limits: Limits = Limits()
) -> Callable[[], None]:
    """Attach a handler for this flow run, unless it has one; return a function that detaches it."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    attached = [each for logger in loggers for each in logger.handlers if isinstance(each, RunLogHandler)]
    if any(each.flow_run == flow_run for each in attached):
        return lambda: None
    handler = RunLogHandler(send, run, flow_run, warn, limits)
    for logger in loggers:
        logger.addHandler(handler)

    def detach() -> None:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()

    return detach

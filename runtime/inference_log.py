"""The inference log: a server's requests and responses, in files that a collector reads and deletes.

A request adds its values to a queue of limited size in memory. One thread excludes and hashes columns as the log policy
says, and writes lines of JSON. The log never delays a request and never makes it fail: a request that does not fit into
memory or on the disk is dropped and counted.

A segment is one file `<root>/<endpoint>/<name>.jsonl.gz`. It is complete and never changes. The file that is being
written is beside it, and its name begins with a dot. It becomes a segment when it is full or old, when the collector
requests it, or when the server starts again.
"""

import hmac
import json
import logging
import os
import secrets
import threading
import uuid
from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any

from runtime.segments import OpenSegment, close_left_segments, used_bytes

_log = logging.getLogger("ratchet.inference_log")

MAX_ROWS_PER_LINE = 500
"""A request of more rows is written as several lines: one long line would block the interpreter, and so the server."""


@dataclass(frozen=True)
class LogLimits:
    """Limits of the log: bytes of request bodies in memory, of all segments on disk, and of one segment; seconds."""

    memory_bytes: int = 32 << 20
    disk_bytes: int = 2 << 30
    segment_bytes: int = 16 << 20
    segment_seconds: float = 60.0
    flush_seconds: float = 0.5
    retry_seconds: float = 5.0


@dataclass(frozen=True)
class LoggedRequest:
    """A request that got a response. `columns` are the values as they were sent; `body_bytes` is the body's size."""

    answered_at: datetime
    request_id: str
    version: str
    rows: int
    columns: Mapping[str, Sequence[Any]]
    response_body: bytes
    body_bytes: int
    excluded_columns: Collection[str] = ()
    hashed_columns: Collection[str] = ()


@dataclass
class LogCounts:
    """Rows written and rows dropped since the start, and the reason of the last drop."""

    logged: int = 0
    dropped: int = 0
    problem: str = ""


class InferenceLog:
    """The log of all endpoints of one server, below a folder that no other process uses."""

    def __init__(self, root: Path, limits: LogLimits = LogLimits()) -> None:
        self.root, self.limits = root, limits
        self._queue: deque[tuple[str, LoggedRequest]] = deque()
        self._queued_bytes = 0
        self._counts: defaultdict[str, LogCounts] = defaultdict(LogCounts)
        self._open: dict[str, OpenSegment] = {}
        self._lock, self._write_lock = threading.RLock(), threading.Lock()
        self._flush_now, self._stopping = threading.Event(), threading.Event()
        self._failed_at = float("-inf")
        self._key = b""

    def start(self) -> None:
        """Create segments from the open files of an earlier process, and start the thread that writes."""
        try:
            self._key = _hash_key(self.root)
            close_left_segments(self.root)
        except OSError as cause:
            _log.error("the inference log in %s cannot be opened: %s", self.root, cause)
        threading.Thread(target=self._run, name="inference-log", daemon=True).start()

    def enqueue(self, endpoint: str, entry: LoggedRequest) -> None:
        """Add a request to the queue, or drop it if the queue is full. Never waits, never fails."""
        with self._lock:
            if self._queued_bytes + entry.body_bytes > self.limits.memory_bytes:
                self._drop(endpoint, entry.rows, f"more than {self.limits.memory_bytes:,} bytes wait to be written")
                return
            self._queued_bytes += entry.body_bytes
        self._queue.append((endpoint, entry))

    def counts(self, endpoint: str) -> LogCounts:
        """Return the counts of an endpoint's log since the server started."""
        return self._counts.get(endpoint) or LogCounts()

    def close_segments(self) -> None:
        """Write the queue, and create segments from all open files: a collector finds them when this returns."""
        with self._write_lock:
            self._write_waiting()
            for endpoint in list(self._open):
                self._close(endpoint)

    def stop(self) -> None:
        """Write the queue, close all segments, and end the thread."""
        self._stopping.set()
        self._flush_now.set()
        self.close_segments()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._flush_now.wait(self.limits.flush_seconds)
            with self._write_lock:
                self._write_waiting()
                for endpoint, segment in list(self._open.items()):
                    if segment.age() >= self.limits.segment_seconds:
                        self._close(endpoint)

    def _write_waiting(self) -> None:
        for _ in range(len(self._queue)):
            endpoint, entry = self._queue.popleft()
            with self._lock:
                self._queued_bytes -= entry.body_bytes
            try:
                self._write(endpoint, entry)
            except OSError as cause:
                self._failed_at = monotonic()
                self._drop(endpoint, entry.rows, f"the disk refuses it: {cause}")
            except Exception as cause:  # such as a value that JSON does not have: only this request is dropped
                _log.exception("a request cannot be logged")
                self._drop(endpoint, entry.rows, f"it cannot be written: {type(cause).__name__}: {cause}")

    def _write(self, endpoint: str, entry: LoggedRequest) -> None:
        if monotonic() - self._failed_at < self.limits.retry_seconds:
            raise OSError(f"it failed a moment ago; tried again after {self.limits.retry_seconds:g} s")
        segment = self._open.get(endpoint) or self._open_segment(endpoint)
        for line in json_lines(entry, self._key):
            segment.append(line)
        self._counts[endpoint].logged += entry.rows
        if segment.bytes >= self.limits.segment_bytes:
            self._close(endpoint)

    def _open_segment(self, endpoint: str) -> OpenSegment:
        """Open a segment. Raises OSError if the segments use up their share of the disk, or there is no key."""
        if not self._key:
            self._key = _hash_key(self.root)
        used = used_bytes(self.root)
        if used >= self.limits.disk_bytes:
            raise OSError(f"segments of {used:,} bytes wait to be collected, {self.limits.disk_bytes:,} are allowed")
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:12]}"
        self._open[endpoint] = OpenSegment(self.root / endpoint, name)
        return self._open[endpoint]

    def _close(self, endpoint: str) -> None:
        try:
            self._open.pop(endpoint).close()
        except OSError as cause:  # the open file remains, and the next start tries again
            self._failed_at = monotonic()
            self._counts[endpoint].problem = f"a segment could not be closed: {cause}"
            _log.error("%s: %s", endpoint, self._counts[endpoint].problem)

    def _drop(self, endpoint: str, rows: int, why: str) -> None:
        counts = self._counts[endpoint]
        if counts.problem != why:
            _log.warning("%s: rows are not logged: %s", endpoint, why)
        with self._lock:
            counts.dropped += rows
            counts.problem = why


def json_lines(entry: LoggedRequest, key: bytes) -> Iterator[bytes]:
    """Yield the entry as lines of JSON of at most `MAX_ROWS_PER_LINE` rows, without the excluded columns.

    A hashed value is the HMAC-SHA-256 of its text with the server's own key: equal values have equal hashes, and nobody
    without the key can find a value by hashing likely ones.
    """
    common = {"at": entry.answered_at.isoformat(), "id": entry.request_id, "version": entry.version}
    columns = {
        name: [_hash_value(value, key) for value in values] if name in entry.hashed_columns else values
        for name, values in entry.columns.items()
        if name not in entry.excluded_columns
    }
    if entry.rows <= MAX_ROWS_PER_LINE:
        head = json.dumps({**common, "rows": entry.rows, "columns": columns}).encode()
        yield head[:-1] + b', "answer": ' + entry.response_body + b"}\n"
        return
    predictions = json.loads(entry.response_body)["predictions"]
    for start in range(0, entry.rows, MAX_ROWS_PER_LINE):
        part = slice(start, min(start + MAX_ROWS_PER_LINE, entry.rows))
        chunk = {"rows": part.stop - start, "columns": {name: values[part] for name, values in columns.items()}}
        yield json.dumps({**common, **chunk, "answer": {"predictions": predictions[part]}}).encode() + b"\n"


def _hash_value(value: object, key: bytes) -> str | None:
    return None if value is None else hmac.new(key, str(value).encode(), sha256).hexdigest()


def _hash_key(root: Path) -> bytes:
    """Return the server's key for hashing, created at the first start; only this user may read it."""
    path = root / "hash.key"
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32))
    key = path.read_bytes().strip()
    if len(key) < 64:
        raise OSError(f"the key in {path} is cut short; remove the file, and values are hashed under a new one")
    return key

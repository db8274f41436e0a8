"""Traffic counters of the model server: by minute for three hours, and by hour for 31 days.

A request only changes counters in memory. A thread saves the changed counters every 10 s; a crash loses at most that
much, and no request waits for the disk.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from blocks.records.traffic import TrafficInterval, latency_bin
from runtime.files import write_text_atomically

_log = logging.getLogger("ratchet.model_server")

RETENTION = {60: 180, 3600: 744}
"""Number of intervals that are kept, by their length in seconds."""
SAVE_SECONDS = 10.0

_INTERVALS = TypeAdapter(list[TrafficInterval])


@dataclass
class IntervalCounts:
    """The counters of one interval."""

    requests: int = 0
    refused: int = 0
    failed: int = 0
    latency: dict[int, int] = field(default_factory=dict)


IntervalSeries = dict[tuple[int, int], IntervalCounts]
"""The intervals of an endpoint, by length in seconds and by number (of such lengths since 1970)."""


class TrafficCounter:
    """The counters of all endpoints, saved in one folder that only this process uses."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder, self._clock = folder, clock
        self._series: dict[str, IntervalSeries] = {}
        self._changed: set[str] = set()
        self._lock, self._ended = threading.Lock(), threading.Event()

    def start(self) -> None:
        """Read the saved counters, and start the thread that saves them."""
        for path in self.folder.glob("*.json"):
            try:
                self._series[path.stem] = _from_traffic(_INTERVALS.validate_json(path.read_bytes()))
            except (OSError, ValueError) as cause:  # unreadable counters must not stop the server
                _log.error("the traffic counters in %s cannot be read and start again at 0: %s", path, cause)
        threading.Thread(target=self._run, name="traffic", daemon=True).start()

    def count(self, name: str, status: int, milliseconds: float) -> None:
        """Count a response. It never waits for the disk."""
        now, latency_bin_index = self._clock(), latency_bin(milliseconds)
        with self._lock:
            series = self._series.setdefault(name, {})
            for seconds in RETENTION:
                key = (seconds, int(now // seconds))
                if key not in series:
                    _remove_expired(series, now)
                counts = series.setdefault(key, IntervalCounts())
                counts.requests += 1
                counts.refused += 400 <= status < 500
                counts.failed += status >= 500
                counts.latency[latency_bin_index] = counts.latency.get(latency_bin_index, 0) + 1
            self._changed.add(name)

    def read(self, name: str) -> list[TrafficInterval]:
        """Return the intervals of an endpoint, oldest first: the hours, then the most recent minutes."""
        with self._lock:
            series = self._series.get(name, {})
            _remove_expired(series, self._clock())
            return list(_to_traffic(series))

    def save(self) -> None:
        """Save the counters that changed since the last save. If that fails, they are saved the next time."""
        with self._lock:
            names, self._changed = self._changed, set()
        for name in names:
            try:
                self._write(name, _INTERVALS.dump_python(self.read(name), mode="json"))
            except OSError as cause:
                with self._lock:
                    self._changed.add(name)
                _log.warning("the traffic counters of %s cannot be saved: %s", name, cause)

    def stop(self) -> None:
        """Save the counters, and end."""
        self._ended.set()
        self.save()

    def _run(self) -> None:
        while not self._ended.wait(SAVE_SECONDS):
            self.save()

    def _write(self, name: str, intervals: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_text_atomically(self.folder / f"{name}.json", json.dumps(intervals))


def _remove_expired(series: IntervalSeries, now: float) -> None:
    old = [key for key in series if key[1] <= now // key[0] - RETENTION[key[0]]]
    for key in old:
        del series[key]


def _to_traffic(series: IntervalSeries) -> Iterator[TrafficInterval]:
    for (seconds, number), counts in sorted(series.items(), key=lambda item: (-item[0][0], item[0][1])):
        start = datetime.fromtimestamp(number * seconds, UTC)
        yield TrafficInterval(start, seconds, counts.requests, counts.refused, counts.failed, dict(counts.latency))


def _from_traffic(intervals: list[TrafficInterval]) -> IntervalSeries:
    """Return saved intervals by their keys; lengths that are no longer kept are left out."""
    return {
        (each.interval_seconds, int(each.start.timestamp()) // each.interval_seconds): IntervalCounts(
            each.requests, each.client_errors, each.server_errors, dict(each.latency_bins)
        )
        for each in intervals
        if each.interval_seconds in RETENTION
    }

"""What the host counts of its traffic: by the minute for three hours and by the hour for 31 days.

A request adds to a few numbers in memory. A thread writes those of the endpoints that were asked every few seconds:
a host that is killed loses so many seconds of counts, and no answer waits for a disk.
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

from blocks.endpoints.traffic import TrafficInterval, latency_bin
from runtime.files import write_text_atomically

_log = logging.getLogger("ratchet.hosting")

RETENTION = {60: 180, 3600: 744}
"""How many stretches are kept, by their length in seconds."""
SAVE_SECONDS = 10.0

_INTERVALS = TypeAdapter(list[TrafficInterval])


@dataclass
class IntervalCounts:
    """The counts of one stretch of time."""

    requests: int = 0
    refused: int = 0
    failed: int = 0
    latency: dict[int, int] = field(default_factory=dict)


IntervalSeries = dict[tuple[int, int], IntervalCounts]
"""The stretches of an endpoint, by their length and the number of such lengths since 1970."""


class TrafficCounter:
    """The counts of all endpoints of one host, below one folder that belongs to this process alone."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder, self._clock = folder, clock
        self._series: dict[str, IntervalSeries] = {}
        self._changed: set[str] = set()
        self._lock, self._ended = threading.Lock(), threading.Event()

    def start(self) -> None:
        """Read what an earlier process counted, and begin to write, in a thread of its own."""
        for path in self.folder.glob("*.json"):
            try:
                self._series[path.stem] = _from_traffic(_INTERVALS.validate_json(path.read_bytes()))
            except (OSError, ValueError) as cause:  # counts are no reason not to serve
                _log.error("the traffic counted in %s cannot be read and begins anew: %s", path, cause)
        threading.Thread(target=self._run, name="traffic", daemon=True).start()

    def count(self, name: str, status: int, milliseconds: float) -> None:
        """Count an answer. Never waits for a disk."""
        now, latency_bin_index = self._clock(), latency_bin(milliseconds)
        with self._lock:
            series = self._series.setdefault(name, {})
            for seconds in RETENTION:
                key = (seconds, int(now // seconds))
                if key not in series:
                    _remove_expired(series, now)
                found = series.setdefault(key, IntervalCounts())
                found.requests += 1
                found.refused += 400 <= status < 500
                found.failed += status >= 500
                found.latency[latency_bin_index] = found.latency.get(latency_bin_index, 0) + 1
            self._changed.add(name)

    def read(self, name: str) -> list[TrafficInterval]:
        """Return what was counted of an endpoint, oldest first: hours, and the newest ones by the minute as well."""
        with self._lock:
            series = self._series.get(name, {})
            _remove_expired(series, self._clock())
            return list(_to_traffic(series))

    def save(self) -> None:
        """Write the counts of the endpoints that were asked since the last time; a full disk costs counts alone."""
        with self._lock:
            names, self._changed = self._changed, set()
        for name in names:
            try:
                self._write(name, _INTERVALS.dump_python(self.read(name), mode="json"))
            except OSError as cause:
                with self._lock:
                    self._changed.add(name)
                _log.warning("the traffic of %s cannot be written: %s", name, cause)

    def stop(self) -> None:
        """Write what was counted, and end."""
        self._ended.set()
        self.save()

    def _run(self) -> None:
        while not self._ended.wait(SAVE_SECONDS):
            self.save()

    def _write(self, name: str, stretches: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_text_atomically(self.folder / f"{name}.json", json.dumps(stretches))


def _remove_expired(series: IntervalSeries, now: float) -> None:
    old = [key for key in series if key[1] <= now // key[0] - RETENTION[key[0]]]
    for key in old:
        del series[key]


def _to_traffic(series: IntervalSeries) -> Iterator[TrafficInterval]:
    for (seconds, number), found in sorted(series.items(), key=lambda item: (-item[0][0], item[0][1])):
        start = datetime.fromtimestamp(number * seconds, UTC)
        yield TrafficInterval(start, seconds, found.requests, found.refused, found.failed, dict(found.latency))


def _from_traffic(read: list[TrafficInterval]) -> IntervalSeries:
    """Return stored counts by their keys; what is of a length that is kept no more is left out."""
    return {
        (each.interval_seconds, int(each.start.timestamp()) // each.interval_seconds): IntervalCounts(
            each.requests, each.client_errors, each.server_errors, dict(each.latency_bins)
        )
        for each in read
        if each.interval_seconds in RETENTION
    }

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

from blocks.endpoints.traffic import Traffic, latency_bin
from runtime.files import replace_text

_log = logging.getLogger("ratchet.hosting")

KEPT = {60: 180, 3600: 744}
"""How many stretches are kept, by their length in seconds."""
SAVE_SECONDS = 10.0

_STRETCHES = TypeAdapter(list[Traffic])


@dataclass
class Stretch:
    """The counts of one stretch of time."""

    requests: int = 0
    refused: int = 0
    failed: int = 0
    latency: dict[int, int] = field(default_factory=dict)


Series = dict[tuple[int, int], Stretch]
"""The stretches of an endpoint, by their length and the number of such lengths since 1970."""


class Meter:
    """The counts of all endpoints of one host, below one folder that belongs to this process alone."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder, self._clock = folder, clock
        self._series: dict[str, Series] = {}
        self._unsaved: set[str] = set()
        self._guard, self._ended = threading.Lock(), threading.Event()

    def start(self) -> None:
        """Read what an earlier process counted, and begin to write, in a thread of its own."""
        for path in self.folder.glob("*.json"):
            try:
                self._series[path.stem] = _series(_STRETCHES.validate_json(path.read_bytes()))
            except (OSError, ValueError) as cause:  # counts are no reason not to serve
                _log.error("the traffic counted in %s cannot be read and begins anew: %s", path, cause)
        threading.Thread(target=self._run, name="traffic", daemon=True).start()

    def count(self, name: str, status: int, milliseconds: float) -> None:
        """Count an answer. Never waits for a disk."""
        now, place = self._clock(), latency_bin(milliseconds)
        with self._guard:
            series = self._series.setdefault(name, {})
            for seconds in KEPT:
                key = (seconds, int(now // seconds))
                if key not in series:
                    _forget_old(series, now)
                found = series.setdefault(key, Stretch())
                found.requests += 1
                found.refused += 400 <= status < 500
                found.failed += status >= 500
                found.latency[place] = found.latency.get(place, 0) + 1
            self._unsaved.add(name)

    def read(self, name: str) -> list[Traffic]:
        """Return what was counted of an endpoint, oldest first: hours, and the newest ones by the minute as well."""
        with self._guard:
            series = self._series.get(name, {})
            _forget_old(series, self._clock())
            return list(_traffic(series))

    def save(self) -> None:
        """Write the counts of the endpoints that were asked since the last time; a full disk costs counts alone."""
        with self._guard:
            names, self._unsaved = self._unsaved, set()
        for name in names:
            try:
                self._write(name, _STRETCHES.dump_python(self.read(name), mode="json"))
            except OSError as cause:
                with self._guard:
                    self._unsaved.add(name)
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
        replace_text(self.folder / f"{name}.json", json.dumps(stretches))


def _forget_old(series: Series, now: float) -> None:
    old = [key for key in series if key[1] <= now // key[0] - KEPT[key[0]]]
    for key in old:
        del series[key]


def _traffic(series: Series) -> Iterator[Traffic]:
    for (seconds, number), found in sorted(series.items(), key=lambda item: (-item[0][0], item[0][1])):
        start = datetime.fromtimestamp(number * seconds, UTC)
        yield Traffic(start, seconds, found.requests, found.refused, found.failed, dict(found.latency))


def _series(read: list[Traffic]) -> Series:
    """Return stored counts by their keys; what is of a length that is kept no more is left out."""
    return {
        (each.seconds, int(each.start.timestamp()) // each.seconds): Stretch(
            each.requests, each.refused, each.failed, dict(each.latency)
        )
        for each in read
        if each.seconds in KEPT
    }

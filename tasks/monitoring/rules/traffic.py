"""Traffic in steps that a page can show: requests, errors and latency by stretches of one length."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

MOST_STEPS = 60
_STEPS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 360, 1440))
FURTHEST = timedelta(days=31)
"""How far back traffic is shown."""


class Counted(Protocol):
    """What is read of the counts of an endpoint; `blocks.endpoints.traffic.Traffic` is one."""

    @property
    def start(self) -> datetime:
        """When the stretch begins."""

    @property
    def seconds(self) -> int:
        """How long it is."""

    @property
    def requests(self) -> int:
        """How many were made."""

    @property
    def refused(self) -> int:
        """How many of them were refused (4xx)."""

    @property
    def failed(self) -> int:
        """How many of them failed (5xx, or no answer in time)."""

    @property
    def latency(self) -> Mapping[int, int]:
        """How many took at most 10 ** (k / 10) ms, by k, and more than the bin before."""


@dataclass(frozen=True)
class Stretch:
    """The requests of one stretch of time."""

    start: datetime
    seconds: int
    requests: int = 0
    refused: int = 0
    failed: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)

    @property
    def answered(self) -> int:
        """How many were answered as they were meant to be."""
        return self.requests - self.refused - self.failed

    def quantile(self, share: float) -> float | None:
        """Return the milliseconds within which this share was answered, to a tenth of a decade; None without any."""
        return quantile(self.latency, share)


def step_for(first: datetime, now: datetime) -> timedelta:
    """Return the finest step in which the time from `first` to `now` takes few enough of them."""
    return next((step for step in _STEPS if (now - first) / step < MOST_STEPS), _STEPS[-1])


def stretches(counts: Sequence[Counted], now: datetime) -> tuple[Stretch, ...]:
    """Return the counts in even steps up to `now`, oldest first, with a zero where nothing was counted between.

    Counts of several lengths tell of the same requests: the finest that tell of all of them are taken.
    """
    recent = [each for each in counts if each.start + timedelta(seconds=each.seconds) > now - FURTHEST]
    by_length: dict[int, list[Counted]] = {}
    for each in recent:
        by_length.setdefault(each.seconds, []).append(each)
    if not by_length:
        return ()
    totals = {seconds: sum(each.requests for each in its) for seconds, its in by_length.items()}
    finest = min(seconds for seconds, total in totals.items() if total == max(totals.values()))
    chosen = by_length[finest]
    step = max(step_for(min(each.start for each in chosen), now), timedelta(seconds=finest))
    return _even(chosen, step, now)


def steps_between(first: datetime, now: datetime) -> tuple[datetime, ...]:
    """Return the beginnings of the even steps in which the time from `first` to `now` is shown."""
    step = step_for(first, now)
    begin = floor(max(first, now - FURTHEST), step)
    return tuple(begin + number * step for number in range(int((now - begin) / step) + 1))


def floor(at: datetime, step: timedelta) -> datetime:
    """Return the beginning of the step that a time falls into."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + (at - epoch) // step * step


def quantile(latency: Mapping[int, int], share: float) -> float | None:
    """Return the milliseconds within which a share of the answers came; None when there are none.

    Within a bin the answers are taken to be spread evenly over its logarithm.
    """
    total = sum(latency.values())
    if not total:
        return None
    wanted, seen = share * total, 0
    for place, found in sorted(latency.items()):
        if found and seen + found >= wanted:
            return float(10 ** ((place - 1 + (wanted - seen) / found) / 10))
        seen += found
    return float(10 ** (max(latency) / 10))


def pooled(parts: Iterable[Counted]) -> Stretch | None:
    """Return several stretches as one; None when there are none."""
    its = list(parts)
    if not its:
        return None
    begin, end = min(e.start for e in its), max(e.start + timedelta(seconds=e.seconds) for e in its)
    latency: Counter[int] = Counter()
    for each in its:
        latency.update(each.latency)
    return Stretch(
        begin,
        int((end - begin).total_seconds()),
        sum(each.requests for each in its),
        sum(each.refused for each in its),
        sum(each.failed for each in its),
        dict(latency),
    )


def _even(counts: Sequence[Counted], step: timedelta, now: datetime) -> tuple[Stretch, ...]:
    by_step: dict[datetime, list[Counted]] = {}
    for each in counts:
        by_step.setdefault(floor(each.start, step), []).append(each)
    begin, seconds = min(by_step), int(step.total_seconds())
    made = []
    for number in range(int((now - begin) / step) + 1):
        start = begin + number * step
        whole = pooled(by_step.get(start, [])) or Stretch(start, seconds)
        made.append(Stretch(start, seconds, whole.requests, whole.refused, whole.failed, whole.latency))
    return tuple(made)

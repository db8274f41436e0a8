"""Traffic in steps that a page can show: requests, errors and latency by stretches of one length."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

MAX_STEPS = 60
_STEPS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 360, 1440))
TRAFFIC_LOOKBACK = timedelta(days=31)
"""How far back traffic is shown."""


class RequestCountsLike(Protocol):
    """What is read of the counts of an endpoint; `blocks.endpoints.traffic.TrafficInterval` is one."""

    @property
    def start(self) -> datetime:
        """When the stretch begins."""

    @property
    def interval_seconds(self) -> int:
        """How long it is."""

    @property
    def requests(self) -> int:
        """How many were made."""

    @property
    def client_errors(self) -> int:
        """How many of them were refused (4xx)."""

    @property
    def server_errors(self) -> int:
        """How many of them failed (5xx, or no answer in time)."""

    @property
    def latency_bins(self) -> Mapping[int, int]:
        """How many took at most 10 ** (k / 10) ms, by k, and more than the bin before."""


@dataclass(frozen=True)
class RequestStep:
    """The requests of one stretch of time."""

    start: datetime
    interval_seconds: int
    requests: int = 0
    client_errors: int = 0
    server_errors: int = 0
    latency_bins: Mapping[int, int] = field(default_factory=dict)

    @property
    def answered(self) -> int:
        """How many were answered as they were meant to be."""
        return self.requests - self.client_errors - self.server_errors

    def quantile(self, share: float) -> float | None:
        """Return the milliseconds within which this share was answered, to a tenth of a decade; None without any."""
        return latency_quantile(self.latency_bins, share)


def finest_step(first: datetime, now: datetime) -> timedelta:
    """Return the finest step in which the time from `first` to `now` takes few enough of them."""
    return next((step for step in _STEPS if (now - first) / step < MAX_STEPS), _STEPS[-1])


def even_request_steps(counts: Sequence[RequestCountsLike], now: datetime) -> tuple[RequestStep, ...]:
    """Return the counts in even steps up to `now`, oldest first, with a zero where nothing was counted between.

    Counts of several lengths tell of the same requests: the finest that tell of all of them are taken.
    """
    recent = [each for each in counts if each.start + timedelta(seconds=each.interval_seconds) > now - TRAFFIC_LOOKBACK]
    by_length: dict[int, list[RequestCountsLike]] = {}
    for each in recent:
        by_length.setdefault(each.interval_seconds, []).append(each)
    if not by_length:
        return ()
    totals = {seconds: sum(each.requests for each in its) for seconds, its in by_length.items()}
    finest = min(seconds for seconds, total in totals.items() if total == max(totals.values()))
    chosen = by_length[finest]
    step = max(finest_step(min(each.start for each in chosen), now), timedelta(seconds=finest))
    return _in_even_steps(chosen, step, now)


def step_starts(first: datetime, now: datetime) -> tuple[datetime, ...]:
    """Return the beginnings of the even steps in which the time from `first` to `now` is shown."""
    step = finest_step(first, now)
    begin = floor_to_step(max(first, now - TRAFFIC_LOOKBACK), step)
    return tuple(begin + number * step for number in range(int((now - begin) / step) + 1))


def floor_to_step(at: datetime, step: timedelta) -> datetime:
    """Return the beginning of the step that a time falls into."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + (at - epoch) // step * step


def latency_quantile(latency: Mapping[int, int], share: float) -> float | None:
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


def merge_steps(parts: Iterable[RequestCountsLike]) -> RequestStep | None:
    """Return several stretches as one; None when there are none."""
    its = list(parts)
    if not its:
        return None
    begin, end = min(e.start for e in its), max(e.start + timedelta(seconds=e.interval_seconds) for e in its)
    latency: Counter[int] = Counter()
    for each in its:
        latency.update(each.latency_bins)
    return RequestStep(
        begin,
        int((end - begin).total_seconds()),
        sum(each.requests for each in its),
        sum(each.client_errors for each in its),
        sum(each.server_errors for each in its),
        dict(latency),
    )


def _in_even_steps(counts: Sequence[RequestCountsLike], step: timedelta, now: datetime) -> tuple[RequestStep, ...]:
    by_step: dict[datetime, list[RequestCountsLike]] = {}
    for each in counts:
        by_step.setdefault(floor_to_step(each.start, step), []).append(each)
    begin, seconds = min(by_step), int(step.total_seconds())
    made = []
    for number in range(int((now - begin) / step) + 1):
        start = begin + number * step
        whole = merge_steps(by_step.get(start, [])) or RequestStep(start, seconds)
        made.append(
            RequestStep(start, seconds, whole.requests, whole.client_errors, whole.server_errors, whole.latency_bins)
        )
    return tuple(made)

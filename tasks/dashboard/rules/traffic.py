"""Requests, errors and latency over time, in steps of one length for a chart."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from blocks.records.traffic import TrafficInterval

MAX_STEPS = 60
_STEPS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 360, 1440))
TRAFFIC_LOOKBACK = timedelta(days=31)
"""The time range of the charts."""


def finest_step(first: datetime, now: datetime) -> timedelta:
    """Return the finest step with which the time from `first` to `now` has fewer than `MAX_STEPS` steps."""
    return next((step for step in _STEPS if (now - first) / step < MAX_STEPS), _STEPS[-1])


def even_request_steps(counts: Sequence[TrafficInterval], now: datetime) -> tuple[TrafficInterval, ...]:
    """Return the counts in even steps up to `now`, oldest first. Steps without counts are zero.

    Intervals of different lengths count the same requests. The finest length that has all of them is used.
    """
    recent = [each for each in counts if each.start + timedelta(seconds=each.interval_seconds) > now - TRAFFIC_LOOKBACK]
    by_length: dict[int, list[TrafficInterval]] = {}
    for each in recent:
        by_length.setdefault(each.interval_seconds, []).append(each)
    if not by_length:
        return ()
    totals = {seconds: sum(each.requests for each in intervals) for seconds, intervals in by_length.items()}
    finest = min(seconds for seconds, total in totals.items() if total == max(totals.values()))
    chosen = by_length[finest]
    step = max(finest_step(min(each.start for each in chosen), now), timedelta(seconds=finest))
    return _in_even_steps(chosen, step, now)


def step_starts(first: datetime, now: datetime) -> tuple[datetime, ...]:
    """Return the starts of the even steps from `first` to `now`."""
    step = finest_step(first, now)
    begin = floor_to_step(max(first, now - TRAFFIC_LOOKBACK), step)
    return tuple(begin + number * step for number in range(int((now - begin) / step) + 1))


def floor_to_step(at: datetime, step: timedelta) -> datetime:
    """Return the start of the step that contains a time."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + (at - epoch) // step * step


def latency_quantile(latency: Mapping[int, int], share: float) -> float | None:
    """Return a quantile of the latency in milliseconds, to a tenth of a decade; None without requests.

    Within a bin the logarithms are assumed to be uniform.
    """
    total = sum(latency.values())
    if not total:
        return None
    target, below = share * total, 0
    for index, count in sorted(latency.items()):
        if count and below + count >= target:
            return float(10 ** ((index - 1 + (target - below) / count) / 10))
        below += count
    return float(10 ** (max(latency) / 10))


def merge_steps(parts: Iterable[TrafficInterval]) -> TrafficInterval | None:
    """Return several intervals as one; None when there are none."""
    intervals = list(parts)
    if not intervals:
        return None
    begin = min(each.start for each in intervals)
    end = max(each.start + timedelta(seconds=each.interval_seconds) for each in intervals)
    latency: Counter[int] = Counter()
    for each in intervals:
        latency.update(each.latency_bins)
    return TrafficInterval(
        begin,
        int((end - begin).total_seconds()),
        sum(each.requests for each in intervals),
        sum(each.client_errors for each in intervals),
        sum(each.server_errors for each in intervals),
        dict(latency),
    )


def _in_even_steps(counts: Sequence[TrafficInterval], step: timedelta, now: datetime) -> tuple[TrafficInterval, ...]:
    by_step: dict[datetime, list[TrafficInterval]] = {}
    for each in counts:
        by_step.setdefault(floor_to_step(each.start, step), []).append(each)
    begin, seconds = min(by_step), int(step.total_seconds())
    steps = []
    for number in range(int((now - begin) / step) + 1):
        start = begin + number * step
        whole = merge_steps(by_step.get(start, [])) or TrafficInterval(start, seconds, 0, 0, 0)
        steps.append(replace(whole, start=start, interval_seconds=seconds))
    return tuple(steps)

"""Traffic in even steps: each request is counted once, empty steps are shown, and quantiles are within their bins."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.records.traffic import TrafficInterval, latency_bin
from tasks.dashboard.rules.traffic import (
    MAX_STEPS,
    TRAFFIC_LOOKBACK,
    even_request_steps,
    finest_step,
    latency_quantile,
    merge_steps,
    step_starts,
)

NOW = datetime(2026, 11, 25, 12, 30, 20, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def counted(ago: timedelta, seconds: int, requests: int = 1) -> TrafficInterval:
    begin = int((NOW - ago).timestamp()) // seconds * seconds
    return TrafficInterval(datetime.fromtimestamp(begin, UTC), seconds, requests, 0, 0, {5: requests})


def test_no_counts_are_no_traffic() -> None:
    assert even_request_steps([], NOW) == ()
    assert merge_steps([]) is None
    assert even_request_steps([counted(40 * DAY, 3600)], NOW) == (), "older than what is shown"


def test_what_is_minutes_old_is_shown_by_the_minute_with_the_silence_between() -> None:
    counts = [counted(10 * MINUTE, 3600, 3), counted(10 * MINUTE, 60, 2), counted(2 * MINUTE, 60, 1)]
    shown = even_request_steps(counts, NOW)
    assert {each.interval_seconds for each in shown} == {60}
    assert [each.requests for each in shown] == [2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    assert shown[-1].start <= NOW < shown[-1].start + MINUTE


def test_what_minutes_no_longer_tell_of_is_shown_by_the_hour_and_nothing_twice() -> None:
    counts = [counted(30 * HOUR, 3600, 7), counted(5 * MINUTE, 3600, 3), counted(5 * MINUTE, 60, 3)]
    shown = even_request_steps(counts, NOW)
    assert {each.interval_seconds for each in shown} == {3600} and len(shown) == 31
    assert sum(each.requests for each in shown) == 10


@given(st.floats(min_value=0.01, max_value=31 * 24 * 60 - 1))
def test_steps_are_few_even_and_reach_from_the_first_to_now(minutes: float) -> None:
    first = NOW - timedelta(minutes=minutes)
    starts, step = step_starts(first, NOW), finest_step(first, NOW)
    assert len(starts) <= MAX_STEPS + 1
    assert starts[0] <= first < starts[0] + step and starts[-1] <= NOW < starts[-1] + step
    assert {b - a for a, b in pairwise(starts)} <= {step}


def test_a_year_is_shown_as_the_newest_month() -> None:
    starts = step_starts(NOW - 365 * DAY, NOW)
    assert len(starts) == 32 and starts[0] >= NOW - TRAFFIC_LOOKBACK - DAY


@given(st.lists(st.floats(min_value=0.2, max_value=50_000), min_size=1, max_size=200), st.sampled_from([0.5, 0.95]))
def test_a_quantile_is_right_to_a_tenth_of_a_decade(times: list[float], share: float) -> None:
    latency: dict[int, int] = {}
    for each in times:
        latency[latency_bin(each)] = latency.get(latency_bin(each), 0) + 1
    exact = float(np.quantile(times, share, method="inverted_cdf"))
    found = latency_quantile(latency, share)
    assert found is not None and 10**-0.1001 <= found / exact <= 10**0.1001


def test_no_answers_have_no_quantile() -> None:
    assert latency_quantile({}, 0.5) is None and latency_quantile({3: 0}, 0.5) is None


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ends_of_the_scale_have_one(share: float) -> None:
    assert latency_quantile({-10: 1, 50: 1}, share) is not None

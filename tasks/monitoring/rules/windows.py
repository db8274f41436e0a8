"""Time windows of the inference log, and SQL for the window of a row."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.monitoring.rules.requests import MODEL_VERSION_COLUMN, REQUESTED_AT_COLUMN
from tasks.shared.rules import sql

WEEK = timedelta(days=7)
_SEASON_WEEKS = 4
_MIN_SEASONAL_WINDOW = timedelta(hours=1)


@dataclass(frozen=True)
class TimeSpan:
    """A time span: after `start`, up to and including `end`."""

    start: datetime
    end: datetime


def newest_windows(until: datetime, length: timedelta, count: int) -> list[TimeSpan]:
    """Return consecutive windows that end at a time, the newest first."""
    return [TimeSpan(until - (at + 1) * length, until - at * length) for at in range(count)]


def divides_week(length: timedelta) -> bool:
    """Return whether a week is a whole number of windows of this length (one hour to three and a half days)."""
    return _MIN_SEASONAL_WINDOW <= length <= timedelta(days=3.5) and not WEEK % length


def same_window_weeks_before(window: TimeSpan) -> list[TimeSpan]:
    """Return the same window one to four weeks earlier."""
    return [TimeSpan(window.start - at * WEEK, window.end - at * WEEK) for at in range(1, _SEASON_WEEKS + 1)]


def other_windows_before(window: TimeSpan, length: timedelta, skipped: int) -> list[TimeSpan]:
    """Return the other windows of those four weeks, without the `skipped` newest ones."""
    same = set(same_window_weeks_before(window))
    return [
        span
        for span in newest_windows(window.end, length, _SEASON_WEEKS * (WEEK // length))[skipped:]
        if span not in same
    ]


def version_requests_sql(version: str, spans: Sequence[TimeSpan]) -> str:
    """Return the requests of a version between the first start and the last end of the spans, as a table in SQL."""
    first, last = min(span.start for span in spans), max(span.end for span in spans)
    known = f"{sql.quoted_name(MODEL_VERSION_COLUMN)} = {sql.text_literal(version)}"
    at = sql.quoted_name(REQUESTED_AT_COLUMN)
    between = f"{at} > {sql.timestamp_literal(first)} AND {at} <= {sql.timestamp_literal(last)}"
    return f"(SELECT * FROM rows WHERE {known} AND {between}) AS requests"  # noqa: S608 - quoted


def window_index_sql(spans: Sequence[TimeSpan]) -> str:
    """Return SQL for the index of a row's span; -1 for a row outside all spans."""
    at = sql.quoted_name(REQUESTED_AT_COLUMN)
    cases = " ".join(
        f"WHEN {at} > {sql.timestamp_literal(span.start)} AND {at} <= {sql.timestamp_literal(span.end)} THEN {place}"
        for place, span in enumerate(spans)
    )
    return f"CASE {cases} ELSE -1 END"

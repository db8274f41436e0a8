"""The windows of time that are looked at, and the conditions in SQL that tell which one a row is in."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.monitoring.rules.requests import AT, VERSION
from tasks.shared.rules import sql

WEEK = timedelta(days=7)
_WEEKS = 4
_SHORTEST = timedelta(hours=1)


@dataclass(frozen=True)
class Span:
    """A stretch of time: after `start`, up to and including `end`."""

    start: datetime
    end: datetime


def newest_windows(until: datetime, length: timedelta, count: int) -> list[Span]:
    """Return windows that follow one another back from a time, the newest first."""
    return [Span(until - (at + 1) * length, until - at * length) for at in range(count)]


def is_weekly(length: timedelta) -> bool:
    """Tell whether windows of this length repeat every week: from an hour up to three days, and a part of a week."""
    return _SHORTEST <= length <= timedelta(days=3.5) and not WEEK % length


def weeks_before(window: Span) -> list[Span]:
    """Return the same window one to four weeks earlier."""
    return [Span(window.start - at * WEEK, window.end - at * WEEK) for at in range(1, _WEEKS + 1)]


def days_before(window: Span, length: timedelta, skipped: int) -> list[Span]:
    """Return the other windows of those four weeks, without the `skipped` newest ones."""
    same = set(weeks_before(window))
    return [
        span for span in newest_windows(window.end, length, _WEEKS * (WEEK // length))[skipped:] if span not in same
    ]


def of_version(version: str, spans: Sequence[Span]) -> str:
    """Return the requests that a version answered in any of the spans, as a table in SQL."""
    first, last = min(span.start for span in spans), max(span.end for span in spans)
    known = f"{sql.name(VERSION)} = {sql.text(version)}"
    at = sql.name(AT)
    return (
        f"(SELECT * FROM rows WHERE {known} AND {at} > {sql.moment(first)} AND {at} <= {sql.moment(last)}) AS requests"  # noqa: S608 - quoted
    )


def window_number(spans: Sequence[Span]) -> str:
    """Return the place of a row's window among the spans as SQL; -1 for a row that is in none."""
    at = sql.name(AT)
    cases = " ".join(
        f"WHEN {at} > {sql.moment(span.start)} AND {at} <= {sql.moment(span.end)} THEN {place}"
        for place, span in enumerate(spans)
    )
    return f"CASE {cases} ELSE -1 END"

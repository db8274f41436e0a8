"""Monitoring windows: consecutive without a gap, each with its counterparts in earlier weeks."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.engines.duckdb import DuckDBEngine
from tasks.monitoring.rules.requests import (
    MODEL_VERSION_COLUMN,
    REQUESTED_AT_COLUMN,
    divides_week,
    newest_windows,
    newest_windows_text,
    other_windows_before,
    same_window_weeks_before,
    version_requests_sql,
    window_index_sql,
)

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def test_a_row_is_in_one_window_and_those_of_another_version_or_time_in_none(tmp_path: Path) -> None:
    times = [NOON, NOON - DAY, NOON - DAY + timedelta(microseconds=1), NOON - 2 * DAY, NOON - 3 * DAY, NOON + DAY]
    rows = {
        REQUESTED_AT_COLUMN: pa.array(times, pa.timestamp("us", "UTC")),
        MODEL_VERSION_COLUMN: ["1"] * 6,
        "n": range(6),
    }
    other = {REQUESTED_AT_COLUMN: pa.array([NOON], pa.timestamp("us", "UTC")), MODEL_VERSION_COLUMN: ["2"], "n": [6]}
    pq.write_table(
        pa.concat_tables([pa.table({**rows, "n": list(range(6))}), pa.table(other)]), tmp_path / "rows.parquet"
    )
    spans = newest_windows(NOON, DAY, 3)
    query = f"SELECT n, {window_index_sql(spans)} AS w FROM {version_requests_sql('1', spans)} ORDER BY n"
    found = DuckDBEngine().query(query, {"rows": (str(tmp_path / "rows.parquet"),)}).to_pylist()
    assert {row["n"]: row["w"] for row in found} == {0: 0, 1: 1, 2: 0, 3: 2}


def test_the_same_window_of_earlier_weeks_is_not_among_the_other_days() -> None:
    newest = newest_windows(NOON, DAY, 1)[0]
    same, others = same_window_weeks_before(newest), other_windows_before(newest, DAY, 3)
    assert [NOON - span.end for span in same] == [timedelta(days=7 * week) for week in (1, 2, 3, 4)]
    assert not set(same) & set(others)
    assert {span.end.weekday() for span in same} == {NOON.weekday()}
    assert len(others) == 28 - 3 - 3  # the newest three, and the same weekday of three weeks
    assert NOON.weekday() not in {span.end.weekday() for span in others}


@pytest.mark.parametrize(
    ("count", "minutes", "text"),
    [
        (1, 1440, "the newest window of 1 day"),
        (3, 2880, "the 3 newest windows of 2 days"),
        (2, 90, "the 2 newest windows of 90 minutes"),
        (2, 60, "the 2 newest windows of 1 hour"),
        (1, 0.5, "the newest window of 0.5 minutes"),
    ],
)
def test_windows_in_words(count: int, minutes: float, text: str) -> None:
    assert newest_windows_text(count, timedelta(minutes=minutes)) == text


@pytest.mark.parametrize(
    ("length", "weekly"),
    [
        (DAY, True),
        (timedelta(hours=1), True),
        (timedelta(hours=5), False),
        (timedelta(minutes=5), False),
        (7 * DAY, False),
    ],
)
def test_only_windows_that_repeat_by_the_week_have_a_weekday(length: timedelta, weekly: bool) -> None:
    assert divides_week(length) == weekly

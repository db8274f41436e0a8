"""Batch transform: rows go to paid machines only when the hours that this saves are worth the cost, and unchanged."""

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.batch.rules import transform
from tasks.batch.rules.transform import (
    MIN_JOB_SECONDS,
    TIMEOUT_FACTOR,
    choose_placement,
    parse_predictions,
    placement_markdown,
    request_body,
    split_into_requests,
)
from tasks.shared.rules.refusal import Refusal


@dataclass(frozen=True)
class Speeds:
    rows_per_second: float = 20_000
    startup_seconds: float = 300
    local_rows_per_second: float = 1_000
    max_usd_per_hour_saved: float = 1.0


def hourly() -> float:
    return 0.23


def never() -> float:
    raise AssertionError("the price was asked for")


def test_without_machines_it_is_done_here_and_nobody_asks_for_a_price() -> None:
    assert choose_placement(10**9, 0, None, never).target == "flow"


def test_few_rows_are_done_here_and_nobody_asks_for_a_price() -> None:
    few = choose_placement(50_000, 50_000, Speeds(), never)
    assert (few.target, few.max_seconds) == ("flow", 0) and "local_rows 50,000" in few.reason


def test_what_the_flow_run_predicts_as_soon_as_machines_would_stays() -> None:
    place = choose_placement(300_000, 0, Speeds(), never)
    assert place.target == "flow" and "5 min in the flow run and 5 min" in place.reason


def test_many_rows_go_to_machines_and_the_reason_has_both_figures() -> None:
    place = choose_placement(36_000_000, 50_000, Speeds(), hourly)
    assert place.target == "transform" and place.max_seconds == TIMEOUT_FACTOR * 2100
    assert place.reason == (
        "36,000,000 rows take 600 min in the flow run and 35 min by batch transform, including its start; "
        "the job costs about 0.13 USD, and the saved time is worth 9.42 USD (max_usd_per_hour_saved)"
    )


@pytest.mark.parametrize(("worth", "where"), [(0.0, "flow"), (0.01, "flow"), (0.02, "transform")])
def test_what_an_hour_is_worth_decides(worth: float, where: str) -> None:
    assert choose_placement(36_000_000, 0, Speeds(max_usd_per_hour_saved=worth), hourly).target == where


def test_the_limit_of_a_job_is_never_shorter_than_its_start_may_take() -> None:
    assert choose_placement(400_000, 0, Speeds(startup_seconds=1), lambda: 0.0).max_seconds == MIN_JOB_SECONDS


@given(st.integers(0, 10**10), st.floats(0.001, 1000), st.floats(0, 100))
def test_machines_are_chosen_only_where_they_are_sooner_and_worth_it(rows: int, usd: float, worth: float) -> None:
    speeds = Speeds(max_usd_per_hour_saved=worth)
    there = speeds.startup_seconds + rows / speeds.rows_per_second
    saved = rows / speeds.local_rows_per_second - there
    place = choose_placement(rows, 1000, speeds, lambda: usd)
    assert (place.target == "transform") is (rows > 1000 and saved > 0 and usd * there <= worth * saved)
    assert (place.max_seconds > there) is (place.target == "transform")


def test_the_report_says_where_why_and_what_it_may_cost() -> None:
    shown = placement_markdown(choose_placement(5, 10, Speeds(), never), "price", "0.00 USD: here")
    assert (
        "## Batch inference of price: in the flow run" in shown
        and "5 rows are few" in shown
        and "0.00 USD: here" in shown
    )


TABLE = pa.table(
    {"key": ["a", "b"], "rooms": [0.1 + 0.2, float("nan")], "street": ["Zoë", None], "flag": [True, False]}
)


def test_values_are_sent_as_they_are_and_the_key_is_not() -> None:
    sent = json.loads(request_body(TABLE, ["rooms", "street", "flag"]))["dataframe_split"]
    assert sent == {"columns": ["rooms", "street", "flag"], "data": [[0.1 + 0.2, "Zoë", 1], [None, None, 0]]}


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_no_digit_is_lost(values: list[float]) -> None:
    sent = json.loads(request_body(pa.table({"a": values}), ["a"]))["dataframe_split"]["data"]
    assert [row[0] for row in sent] == values


@given(st.integers(1, 40), st.integers(60, 400))
def test_however_it_is_cut_every_row_is_asked_for_once_in_order(rows: int, limit: int) -> None:
    table = pa.table({"key": [str(number) for number in range(rows)], "a": list(range(rows))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transform, "MAX_REQUEST_BYTES", limit)
        patch.setattr(transform, "MAX_REQUEST_ROWS", 7)
        made = split_into_requests(table, ["a"])
    asked = [row[0] for body, _ in made for row in json.loads(body)["dataframe_split"]["data"]]
    assert asked == list(range(rows))
    assert [key for _, part in made for key in part["key"].to_pylist()] == table["key"].to_pylist()
    assert all(len(body) <= limit for body, _ in made)


def test_what_cannot_be_sent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refusal, match="cannot be sent"):
        request_body(pa.table({"a": [float("inf")]}), ["a"])
    monkeypatch.setattr(transform, "MAX_REQUEST_BYTES", 50)
    with pytest.raises(Refusal, match="a single row exceeds"):
        split_into_requests(pa.table({"a": ["x" * 100]}), ["a"])


ANSWERS = {
    "a number a row": (b'{"predictions": [1.5, 2]}', [1.5, 2.0]),
    "probabilities": (b'{"predictions": [[0.25, 0.75], [1, 0]]}', [[0.25, 0.75], [1.0, 0.0]]),
    "named columns": (b'{"predictions": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}', [[1.0, 2.0], [3.0, 4.0]]),
}


@pytest.mark.parametrize(("body", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_answers_are_read(body: bytes, expected: list[float]) -> None:
    assert np.array_equal(parse_predictions(body, 2), np.array(expected))


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"predictions": [1]}', b'{"predictions": ["x", 1]}', b'{"predictions": [[1], [1, 2]]}',
     b'{"predictions": 5}', b'{"error": "no"}', b"\xff"],
    ids=["nothing", "a list", "no member", "too few", "text", "ragged", "one number", "an error", "no text"],
)  # fmt: skip
def test_an_answer_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal):
        parse_predictions(body, 2)

"""The place of batch inference: rows go to paid machines only when the hours that this saves are worth the cost."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.batch.rules.place import MIN_JOB_SECONDS, TIMEOUT_FACTOR, choose_placement, placement_markdown


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

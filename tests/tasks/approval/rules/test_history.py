"""Deployment history: the deployed version, and the target of a rollback."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.approval.rules.history import champion_of, rollback_target, standing_versions
from tasks.shared.rules.refusal import Refusal


@dataclass(frozen=True)
class Line:
    version: str
    action: str = "deploy"
    status: str = "serving"


def newest_first(*lines: Line) -> list[Line]:
    return list(reversed(lines))


def test_nothing_serves_before_the_first_release() -> None:
    assert champion_of([]) == ""
    with pytest.raises(Refusal, match="no earlier version"):
        rollback_target([])


def test_a_rollback_goes_to_the_version_that_served_before() -> None:
    lines = newest_first(Line("1"), Line("2"), Line("5"))
    assert champion_of(lines) == "5"
    assert rollback_target(lines) == "2"


def test_a_version_that_failed_never_served() -> None:
    lines = newest_first(Line("1"), Line("2"), Line("3", status="failed"))
    assert champion_of(lines) == "2"
    assert rollback_target(lines) == "1"
    with pytest.raises(Refusal, match="was never deployed"):
        rollback_target(lines, "3")


def test_a_second_rollback_goes_further_back_and_not_to_the_version_taken_back() -> None:
    lines = newest_first(Line("1"), Line("2"), Line("3"), Line("2", action="rollback"))
    assert champion_of(lines) == "2"
    assert rollback_target(lines) == "1"


def test_a_named_version_that_served_once_can_be_restored() -> None:
    lines = newest_first(Line("1"), Line("2"), Line("1", action="rollback"))
    assert rollback_target(lines, "2") == "2"
    with pytest.raises(Refusal, match="is deployed already"):
        rollback_target(lines, "1")


@given(st.lists(st.builds(Line, st.sampled_from("1234"), st.sampled_from(["deploy", "rollback"]),
                          st.sampled_from(["serving", "failed"]))))  # fmt: skip
def test_the_champion_is_the_last_line_that_ended_well(lines: list[Line]) -> None:
    well = [line for line in lines if line.status == "serving"]
    assert champion_of(lines) == (well[0].version if well else "")
    assert len(set(standing_versions(lines))) == len(standing_versions(lines))

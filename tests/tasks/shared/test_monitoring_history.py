"""Looks kept in the lake: each once, found again by time, and never in the way of what is told."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tasks.shared.monitoring_history import keep_look, looks_since
from tests.tasks.monitoring.watched import DAY, UNTIL, ask_days, looked, serving
from tests.tasks.shared.test_champion import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return serving(tmp_path)


def test_each_look_is_kept_once_and_read_again_in_order(world: World, tmp_path: Path) -> None:
    ask_days(world, 500)
    quiet = looked(world, tmp_path / "first")
    quiet = quiet.model_copy(update={"folder": quiet.folder.rename(quiet.folder.with_name("run-1"))})
    ask_days(world, 3000, garden=1)
    drifted = looked(world, tmp_path / "second")
    assert keep_look(world, quiet, UNTIL - DAY) and keep_look(world, drifted, UNTIL)
    assert keep_look(world, drifted, UNTIL + DAY), "a task that is tried again"
    first, second = looks_since(world, "price", UNTIL - 2 * DAY)
    assert (first.at, first.outcome, first.newest_rows) == (UNTIL - DAY, "Quiet", 500)
    assert (second.at, second.outcome) == (UNTIL, "Drift")
    found = {measure.name: measure for measure in second.of("drift")}
    assert set(found) == {"rooms", "street", "garden", "prediction Yes"}
    assert found["garden"].found and (found["garden"].value or 0) > 0.25
    assert [look.outcome for look in looks_since(world, "price", UNTIL - timedelta(hours=1))] == ["Drift"]


def test_a_look_that_was_impossible_is_kept_too(tmp_path: Path) -> None:
    world = serving(tmp_path)
    assert keep_look(world, looked(world, tmp_path), UNTIL)
    (look,) = looks_since(world, "price", UNTIL - DAY)
    assert (look.outcome, look.measures) == ("CouldNotCheck", ())


def test_no_look_is_none(world: World) -> None:
    assert looks_since(world, "price", datetime.min.replace(tzinfo=UNTIL.tzinfo)) == ()


def test_a_lake_that_refuses_a_look_does_not_stop_the_telling(world: World, tmp_path: Path, caplog) -> None:
    seen = looked(world, tmp_path)
    world.lake().fail_appends = 1  # type: ignore[attr-defined]  # the fake's knob
    assert not keep_look(world, seen, UNTIL)
    assert "is not kept in price-watch" in caplog.text
    (seen.folder / "judgement.json").write_text("{")
    assert not keep_look(world, seen, UNTIL)

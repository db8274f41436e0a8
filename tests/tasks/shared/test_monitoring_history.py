"""The monitoring history in the lake: each run once, found again by time; a failure to write it stops no alert."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tasks.shared.monitoring_history import monitoring_runs_since, store_monitoring_run
from tests.fakes.environment import World
from tests.fixtures.monitored import DAY, UNTIL, ask_days, looked, serving


@pytest.fixture
def env(tmp_path: Path) -> World:
    return serving(tmp_path)


def test_each_look_is_kept_once_and_read_again_in_order(env: World, tmp_path: Path) -> None:
    ask_days(env, 500)
    quiet = looked(env, tmp_path / "first")
    quiet = quiet.model_copy(update={"folder": quiet.folder.rename(quiet.folder.with_name("run-1"))})
    ask_days(env, 3000, garden=1)
    drifted = looked(env, tmp_path / "second")
    assert store_monitoring_run(env, quiet, UNTIL - DAY) and store_monitoring_run(env, drifted, UNTIL)
    assert store_monitoring_run(env, drifted, UNTIL + DAY), "a task that is tried again"
    first, second = monitoring_runs_since(env, "price", UNTIL - 2 * DAY)
    assert (first.started_at, first.outcome, first.newest_rows) == (UNTIL - DAY, "no_drift", 500)
    assert (second.started_at, second.outcome) == (UNTIL, "drift")
    found = {measure.name: measure for measure in second.of("drift")}
    assert set(found) == {"rooms", "street", "garden", "prediction Yes"}
    assert found["garden"].is_finding and (found["garden"].value or 0) > 0.25
    assert [look.outcome for look in monitoring_runs_since(env, "price", UNTIL - timedelta(hours=1))] == ["drift"]


def test_a_look_that_was_impossible_is_kept_too(tmp_path: Path) -> None:
    env = serving(tmp_path)
    assert store_monitoring_run(env, looked(env, tmp_path), UNTIL)
    (look,) = monitoring_runs_since(env, "price", UNTIL - DAY)
    assert (look.outcome, look.measures) == ("not_checked", ())


def test_no_look_is_none(env: World) -> None:
    assert monitoring_runs_since(env, "price", datetime.min.replace(tzinfo=UNTIL.tzinfo)) == ()


def test_a_lake_that_refuses_a_look_does_not_stop_the_telling(env: World, tmp_path: Path, caplog) -> None:
    seen = looked(env, tmp_path)
    env.lake().fail_appends = 1  # type: ignore[attr-defined]  # the fake's knob
    assert not store_monitoring_run(env, seen, UNTIL)
    assert "is not stored in price-monitoring" in caplog.text
    (seen.folder / "monitoring-report.json").write_text("{")
    assert not store_monitoring_run(env, seen, UNTIL)

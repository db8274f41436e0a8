"""Quality of a model whose entities have several rows: measured where rows are identified, else said to be unmeasurable."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from blocks.engines.duckdb import DuckDBEngine
from tasks.shared.models import TeamModel
from tasks.shared.rules.model.spec import parse_spec
from tests.fakes.environment import World
from tests.fixtures.monitored import DAY, MODEL, UNTIL, ask, causes, houses, judgement, land, looked, promote
from tests.fixtures.spec_cases import BINARY

TIMED = TeamModel(
    MODEL.folder,
    parse_spec(BINARY.replace("  target:", "  time: sold_at\n  request_id: ticket\n  target:"), "model.yaml"),
)
HOURS = timedelta(hours=1)


def sales(count: int, seed: int, start: datetime, houses_: int = 50) -> pd.DataFrame:
    """Return sales of a few houses, each sold many times: its rows have other features and other labels."""
    rows = houses(count, seed)
    return rows.assign(
        house_id=[f"h{number % houses_}" for number in range(count)],
        sold_at=[start + number * HOURS for number in range(count)],
    )


def as_sent(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows as a client sends them, with times as text in its own zone."""
    local = rows["sold_at"].dt.tz_convert("America/New_York")
    return rows.assign(sold_at=[each.isoformat() for each in local])


@pytest.fixture
def env(tmp_path: Path) -> World:
    env = World.at(tmp_path)
    env._adapters["blocks.engines.duckdb.DuckDBEngine"] = DuckDBEngine()
    land(env, sales(3000, 0, UNTIL - 300 * DAY, houses_=200), "first")
    promote(env, TIMED)
    return env


def report_of(folder: Path) -> str:
    return (folder / "look" / "report.md").read_text()


def new_sales(env: World) -> list[pd.DataFrame]:
    """Land the sales of three days, of houses that were sold before; return them by day."""
    days = [sales(500, 100 + day, UNTIL - (20 + 30 * day) * DAY) for day in range(3)]
    for day, rows in enumerate(days):
        land(env, rows, f"labels {day}")
    return days


def test_rows_of_one_entity_meet_their_own_labels(env: World, tmp_path: Path) -> None:
    for day, rows in enumerate(new_sales(env)):
        ask(env, as_sent(rows).sample(frac=1, random_state=day), days_ago=day + 0.5)
    seen = looked(env, tmp_path, model=TIMED)
    assert causes(seen) == set()
    (auc,) = judgement(seen)["quality_metrics"]
    assert (auc["rows"], auc["worse"]) == (1500, False)
    assert abs(auc["current_value"] - auc["reference_value"]) < 0.05
    logged = env.lake().as_of("houses-inference")
    assert dict(logged.schema)["sold_at"] == "timestamp[us, tz=UTC]"


def test_without_times_quality_cannot_be_measured_and_raises_no_alarm(env: World, tmp_path: Path) -> None:
    for day, rows in enumerate(new_sales(env)):
        ask(env, as_sent(rows).drop(columns="sold_at"), days_ago=day + 0.5)
    seen = looked(env, tmp_path, model=TIMED)
    assert (causes(seen), judgement(seen)["quality_metrics"]) == (set(), [])
    assert "Quality cannot be measured: no label can be paired with 1,500 of 1,500 logged predictions" in report_of(
        tmp_path
    )
    assert "1,500 because they carry no sold_at, and house_id alone does not identify a row" in report_of(tmp_path)
    assert seen.outcome == "no_drift" and "Quality cannot be measured" in seen.summary, "nobody takes it for a pass"


def test_a_log_from_before_times_were_logged_is_read_on(env: World, tmp_path: Path) -> None:
    first, *others = new_sales(env)
    older = MODEL  # without data.time the log has no such column
    ask(env, as_sent(first).drop(columns="sold_at"), days_ago=2.5)
    looked(env, tmp_path, model=older)
    assert "sold_at" not in dict(env.lake().as_of("houses-inference").schema)
    for day, rows in enumerate(others):
        ask(env, as_sent(rows), days_ago=day + 0.5)
    seen = looked(env, tmp_path, model=TIMED)
    (auc,) = judgement(seen)["quality_metrics"]
    assert auc["rows"] == 1000
    assert "500 of 1,500 logged predictions: 500 because they carry no sold_at" in report_of(tmp_path)


def test_an_excluded_key_is_named(env: World, tmp_path: Path) -> None:
    rules = TIMED.spec.inference_log.model_copy(update={"exclude": ("sold_at",)})
    private = replace(TIMED, spec=TIMED.spec.model_copy(update={"inference_log": rules}))
    for day, rows in enumerate(new_sales(env)):
        ask(env, as_sent(rows), days_ago=day + 0.5)
    looked(env, tmp_path, model=private)
    assert "because sold_at is excluded from the log, and house_id alone" in report_of(tmp_path)
    assert "sold_at" not in dict(env.lake().as_of("houses-inference").schema)


def test_labels_that_carry_the_request_id_need_no_key_in_the_request(env: World, tmp_path: Path) -> None:
    rows = sales(300, 7, UNTIL - 20 * DAY)
    for number in range(len(rows)):
        ask(env, as_sent(rows[number : number + 1]).drop(columns=["sold_at", "house_id"]), days_ago=0.5 + number / 1000)
    requests = [segment.requests[0]["id"] for segment in env.endpoint().log_segments("price")]
    labels = rows.assign(ticket=list(requests)).sample(frac=1, random_state=1)
    land(env, labels, "labels")
    seen = looked(env, tmp_path, model=TIMED, minimum_rows=10)
    (auc,) = judgement(seen)["quality_metrics"]
    assert (auc["rows"], auc["worse"]) == (300, False)

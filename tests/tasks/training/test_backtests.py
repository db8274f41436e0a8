"""Backtests: the same program on earlier cut-offs and by hash; they note what a model loses on newer rows."""

import json
import logging
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from blocks.common.errors import Unavailable
from blocks.engines.duckdb import DuckDBEngine
from blocks.trainers.local import LocalTrainer
from flows.stopping import stop_training_jobs_of
from tasks.shared.models import TeamModel
from tasks.shared.records import CostEstimate, EvaluationResult, TierData, TrainingResult
from tasks.shared.rules.model.holdout import HoldoutRule
from tasks.shared.rules.model.spec import ModelSpec, parse_spec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.tiers import divide_again
from tasks.training.rules.backtests import BacktestFigure, Backtests, Division, backtest_divisions
from tasks.training.tasks import backtest, run_backtests, store_backtests
from tests.fakes.environment import World
from tests.fixtures.approval_requests import JUDGED, TRAINED
from tests.fixtures.divided_rows import BOTH, FIRST, GROUPED, TIMED, divide, frames, land, sales, spec_of
from tests.fixtures.spec_cases import BINARY

DAY = timedelta(days=1)
TWO = {"margin: 0.5": "margin: 0.05", "evaluation:": "evaluation:\n  backtests: 2"}
PROGRAM = """
import json, os, pathlib
import pyarrow.parquet as pq
rows = pq.read_table(os.environ["SM_CHANNEL_TRAIN"]).to_pylist()
mean = sum(row["rooms"] for row in rows) / len(rows)
slope = sum((row["rooms"] - mean) * (1 if row["price"] == "Yes" else -1) for row in rows) / len(rows)
folder = pathlib.Path(os.environ["SM_MODEL_DIR"], "model")
folder.mkdir()
(folder / "MLmodel").write_text("")
(folder / "fake_model.json").write_text(json.dumps({"rooms": slope}))
"""
FREE = CostEstimate(
    use_local_trainer=False, is_paid=False, worst_case_usd=0.0, serving_usd_month=None, explanation="nothing is paid"
)


def spec_with(base: str, holdout: str = "0.2", **replaced: str) -> ModelSpec:
    for old, new in {**TWO, **replaced}.items():
        base = base.replace(old, new)
    return spec_of(base, holdout)


def houses(flips_on: int) -> pd.DataFrame:
    """Return sales of 100 days of which more rooms sell better; from a day on those with fewer rooms do."""
    rows = sales()
    more = rows["rooms"] > 3
    flipped = rows["sold_at"] >= FIRST + flips_on * DAY
    noise = np.random.default_rng(7).random(len(rows)) < 0.1
    return rows.assign(price=np.where(more ^ flipped ^ noise, "Yes", "No"))


@pytest.fixture
def env(tmp_path: Path) -> World:
    env = World.at(tmp_path)
    env._adapters |= {"trainer": LocalTrainer(root=tmp_path / "jobs"), env.engine_adapter: DuckDBEngine()}
    return env


def version(env: World, folder: Path, rows: pd.DataFrame, spec: ModelSpec, program: str = PROGRAM) -> Any:
    """Return the model with its program, its tier, and the results of its training and evaluation."""
    (folder / "program").mkdir()
    (folder / "program" / "train.py").write_text(program)
    run = env.tracking().open_run("price", key="k", name="price on full")
    trained = TRAINED.model_copy(update={"run_id": run.id, "parameters": {"trees": "3"}, "seed": 5})
    return TeamModel(folder / "program", spec), divide(land(rows), spec, folder), trained


def backtested(env: World, work: tuple[TeamModel, TierData, TrainingResult], auc: float) -> Backtests:
    model, data, trained = work
    evaluated: EvaluationResult = JUDGED.model_copy(update={"metrics": {"auc": auc}, "deciding_metric": "auc"})
    return run_backtests(env, model, data, FREE, trained, evaluated, key="flow:backtest", log=lambda _: None)


def test_a_model_that_is_worse_on_newer_rows_than_by_hash_gets_a_note(env: World, tmp_path: Path) -> None:
    work = version(env, tmp_path, houses(flips_on=80), spec_with(TIMED))
    found = backtested(env, work, auc=0.1)
    assert [each.problem for each in found.figures] == ["", "", "", ""]
    assert [each.rows for each in found.windows] == [19 * 20, 19 * 20], "as long as the holdout of 20 days"
    assert [each.train_rows for each in found.windows] == [61 * 20, 42 * 20]
    assert all(each.value > 0.8 for each in found.windows if each.value is not None)
    assert found.by_hash.value is not None
    assert 0.5 < found.by_hash.value < 0.8, "it knows a part of the days on which it changed"
    assert "by entity and 0.1 by time, more than the margin of 0.05 apart" in found.note


def test_a_model_that_is_as_good_on_newer_rows_gets_none(env: World, tmp_path: Path) -> None:
    found = backtested(env, version(env, tmp_path, houses(flips_on=100), spec_with(TIMED)), auc=0.9)
    assert (found.note, len(found.windows)) == ("", 2)
    assert "no more than the margin of 0.05" in found.conclusion


def test_backtests_leave_child_runs_and_no_version(env: World, tmp_path: Path) -> None:
    work = version(env, tmp_path, houses(flips_on=80), spec_with(TIMED))
    backtested(env, work, auc=0.1)
    children = env.tracking().children(work[2].run_id)
    assert env.tracking().versions("price") == ()
    assert [run.status for run in children] == ["FINISHED"] * 3
    assert [run.tags.get("ratchet.cut_off", "") for run in children] == [
        "2026-03-03T00:00:00+00:00", "2026-02-12T00:00:00+00:00", "",
    ]  # fmt: skip
    assert "2026-03-03" in children[0].tags["ratchet.holdout"]
    assert [run.tags["ratchet.backtest"] for run in children] == [
        "2026-03-03 to 2026-03-22", "2026-02-12 to 2026-03-03", "0.2 of the entities, by hash",
    ]  # fmt: skip
    stopped = stop_training_jobs_of(env, "price", "None", lambda: True, lambda _: None)
    assert len(stopped) == 3, "the hook of a cancelled run finds their jobs"
    jobs = sorted((tmp_path / "jobs").glob("*/001/input/config/hyperparameters.json"))
    assert [json.loads(job.read_text()) for job in jobs] == [{"trees": "3", "seed": "5"}] * 3
    backtested(env, work, auc=0.1)
    assert len(env.tracking().children(work[2].run_id)) == 3, "a task that runs again finds its runs and jobs"


def test_a_backtest_that_fails_or_has_few_rows_says_so_and_the_others_go_on(env: World, tmp_path: Path) -> None:
    failing = PROGRAM.replace("mean =", "assert len(rows) != 42 * 20, 'no such days'\nmean =")
    spec = spec_with(TIMED, **{"backtests: 2": "backtests: 5"})
    found = backtested(env, version(env, tmp_path, houses(flips_on=100), spec, failing), auc=0.9)
    problems = [each.problem for each in found.windows]
    assert problems[0] == problems[2] == ""
    assert problems[1].startswith("failed: ")
    assert found.note == f"1 of 6 backtests failed: {found.windows[1].division.words}."
    assert problems[4] == "skipped: 0 rows to train and 80 to measure; evaluation.minimum_rows is 50"
    assert found.by_hash.value is not None


@pytest.mark.slow  # draws a plot
def test_report_figures_and_plot_are_kept_with_the_run(
    env: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[dict[str, Any]] = []
    for name in ("create_markdown_artifact", "create_image_artifact"):
        monkeypatch.setattr(f"tasks.training.tasks.{name}", lambda **given: shown.append(given))
    work = version(env, tmp_path, houses(flips_on=80), spec_with(TIMED))
    found = backtested(env, work, auc=0.1)
    store_backtests(env.tracking(), "price", work[2], found)
    kept = env.tracking().fetch_files(work[2].run_id, "evaluation", tmp_path / "kept")
    assert [each["key"] for each in shown] == ["backtests", "backtests-plot"]
    assert shown[0]["markdown"] == (kept / "backtests.md").read_text()
    assert "⚠️ auc" in shown[0]["markdown"]
    assert "| 2026-03-22 to 2026-04-10 | 0.1 | 1,600 | 400 | this version |" in shown[0]["markdown"]
    assert (kept / "backtests.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((kept / "backtests.json").read_text())["note"] == found.note
    assert set(env.tracking().run(work[2].run_id).metrics) == {
        "backtest_1_auc", "backtest_2_auc", "backtest_hash_auc",
    }  # fmt: skip


@pytest.mark.parametrize("problem", [RuntimeError("the disk is full"), Unavailable("MLflow does not answer")])
def test_backtests_that_fail_are_a_note_and_fail_no_run(
    env: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, problem: Exception
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise problem

    work = version(env, tmp_path, houses(flips_on=80), spec_with(TIMED))
    monkeypatch.setattr("tasks.training.tasks.open_environment", lambda _: env)
    monkeypatch.setattr("tasks.training.tasks.load_model", lambda _: work[0])
    monkeypatch.setattr("tasks.training.tasks.get_run_logger", lambda: logging.getLogger("run"))
    monkeypatch.setattr("tasks.training.tasks.run_backtests", broken)
    with caplog.at_level("WARNING"):
        note = backtest.fn("price", work[1], FREE, work[2], JUDGED, "local")
    assert note == f"The backtests failed: {type(problem).__name__}: {problem}"
    assert note in caplog.text
    kept = env.tracking().fetch_files(work[2].run_id, "evaluation", tmp_path / "kept")
    assert json.loads((kept / "backtests.json").read_text())["note"] == note, "the approvers read it"


@pytest.mark.parametrize("place", ["train_unregistered", "store_backtests"])
def test_a_transient_error_is_raised_while_the_task_has_retries_and_then_is_a_note(
    env: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise Unavailable("the service is busy")

    work = version(env, tmp_path, houses(flips_on=80), spec_with(TIMED))
    monkeypatch.setattr("tasks.training.tasks.open_environment", lambda _: env)
    monkeypatch.setattr("tasks.training.tasks.load_model", lambda _: work[0])
    monkeypatch.setattr("tasks.training.tasks.get_run_logger", lambda: logging.getLogger("run"))
    monkeypatch.setattr("tasks.training.tasks.create_image_artifact", lambda **_: None)
    monkeypatch.setattr("tasks.training.tasks.create_markdown_artifact", lambda **_: None)
    monkeypatch.setattr(f"tasks.training.tasks.{place}", broken)
    run = SimpleNamespace(run_count=1)
    context = SimpleNamespace(task_run=run, task=SimpleNamespace(retries=4))
    monkeypatch.setattr("tasks.shared.reports.TaskRunContext", SimpleNamespace(get=lambda: context))
    with pytest.raises(Unavailable):
        backtest.fn("price", work[1], FREE, work[2], JUDGED, "local")
    run.run_count = 5
    note = backtest.fn("price", work[1], FREE, work[2], JUDGED, "local")
    assert "backtests failed: " in note
    kept = env.tracking().fetch_files(work[2].run_id, "evaluation", tmp_path / "kept")
    assert json.loads((kept / "backtests.json").read_text())["note"] == note


def test_each_window_has_the_gap_before_it_and_validation_rows_of_its_own(tmp_path: Path) -> None:
    validated = TIMED.replace("  seed: 7", "  seed: 7\n  validation_share: 0.25")
    spec = spec_with(validated, "{share: 0.2, gap_days: 7}")
    data = divide(land(sales()), spec, tmp_path)
    windows, by_hash = backtest_divisions(spec.holdout_rule, FIRST + 80 * DAY, FIRST + 99 * DAY, 2, 0.2)
    parts = frames(divided := divide_again(DuckDBEngine(), data, spec, windows[1]))
    assert (parts["holdout"]["sold_at"].min(), parts["holdout"]["sold_at"].max()) == (
        FIRST + 42 * DAY, FIRST + 60 * DAY,
    )  # fmt: skip
    assert parts["validation"]["sold_at"].max() == FIRST + 34 * DAY, "more than 7 days before"
    assert parts["validation"]["sold_at"].min() - parts["train"]["sold_at"].max() > 7 * DAY
    assert {name: len(rows) for name, rows in parts.items()} == {
        "train": divided.train_rows, "validation": divided.validation_rows, "holdout": divided.holdout_rows,
    }  # fmt: skip
    hashed = divide_again(DuckDBEngine(), data, spec, by_hash)
    assert hashed.train_rows == data.train_rows, "cut to as many rows as by time"
    entities = [set(rows["house_id"]) for rows in frames(hashed).values()]
    assert not set.intersection(*entities)


def test_by_group_and_time_the_hash_divides_groups_and_windows_keep_them_apart(tmp_path: Path) -> None:
    spec = spec_with(BOTH, "0.3")
    data = divide(land(sales(houses=200)), spec, tmp_path)
    windows, by_hash = backtest_divisions(spec.holdout_rule, FIRST + 70 * DAY, FIRST + 99 * DAY, 1, 0.09)
    assert by_hash.rule == HoldoutRule("group", 0.3, group="owner")
    for division in (*windows, by_hash):
        parts = frames(divide_again(DuckDBEngine(), data, spec, division))
        assert not set(parts["train"]["owner"]) & set(parts["holdout"]["owner"])
    assert len(parts["train"]) == data.train_rows


def test_windows_before_all_times_end_at_the_first_time() -> None:
    rule = HoldoutRule("time", None, since="2026-01-01T00:00:00+00:00", time="sold_at")
    windows, by_hash = backtest_divisions(rule, FIRST, FIRST + 365_000 * DAY, 24, 0.9)
    assert [each.cut_off.year for each in windows if each.cut_off][:3] == [1026, 27, 1]
    assert by_hash.rule.share == 0.5


@pytest.mark.parametrize(
    ("metric", "by_hash", "by_time", "noted"),
    [
        ("auc", 0.75, 0.60, True),
        ("auc", 0.64, 0.60, False),
        ("auc", 0.60, 0.75, False),
        ("rmse", 10.0, 10.2, True),
        ("rmse", 10.2, 10.0, False),
        ("auc", None, 0.60, False),
        ("auc", 0.60, None, False),
    ],
)
def test_the_note_follows_the_margin_and_the_direction_of_the_metric(
    metric: str, by_hash: float | None, by_time: float | None, noted: bool
) -> None:
    terms = spec_with(TIMED).evaluation.comparison.model_copy(update={"metric": metric, "margin": 0.05})
    timed = Division("0", HoldoutRule("time", 0.2, time="sold_at"), FIRST, FIRST + DAY)
    hashed = Division("hash", HoldoutRule("entity", 0.2))
    found = Backtests(terms, BacktestFigure(timed, value=by_time), (), BacktestFigure(hashed, value=by_hash))
    assert bool(found.note) == noted
    assert found.conclusion


@pytest.mark.parametrize(("base", "kind"), [(BINARY, "entity"), (GROUPED, "group")], ids=["entity", "group"])
def test_backtests_need_a_holdout_by_time(base: str, kind: str) -> None:
    text = base.replace("evaluation:", TWO["evaluation:"])
    with pytest.raises(Refusal, match=rf"evaluation\.backtests.*holdout by {kind}.*Divide the holdout by time"):
        parse_spec(text, "model.yaml")


def test_backtests_are_trainings_that_the_budget_counts() -> None:
    assert spec_with(TIMED).evaluation.trainings == 4
    assert spec_of(TIMED).evaluation.trainings == 1

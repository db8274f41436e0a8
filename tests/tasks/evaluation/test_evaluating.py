"""Evaluation: both models predict rows that they never trained on, and only verified models are loaded."""

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.common.errors import Rejected, Unavailable
from blocks.tracking.fake import CLASSES_FILE, MODEL_FILE
from runtime.digests import folder_digest
from tasks.evaluation.rules.evaluation import Evaluation, finite_metrics
from tasks.evaluation.rules.report import evaluation_markdown, evaluation_plot
from tasks.evaluation.rules.spending import SpentLevel
from tasks.evaluation.tasks import (
    evaluate_challenger,
    predict_challenger,
    predict_champion,
    spend_level,
    store_evaluation,
)
from tasks.shared.evaluation import comparable_rows, evaluate_on_holdout, sample_rows
from tasks.shared.models import TeamModel
from tasks.shared.records import EvaluationResult, TierData, TrainingResult
from tasks.shared.rules.model.holdout import HoldoutRule
from tasks.shared.rules.model.spec import parse_spec
from tasks.shared.rules.refusal import Refusal
from tests.fakes.environment import NOW, SPEC, World, artifact_of, register, release
from tests.fixtures.approval_requests import DATA, TRAINED
from tests.fixtures.spec_cases import BINARY

ROWS = 200
GOOD_WEIGHTS, NO_WEIGHTS = {"rooms": 1.0}, {"rooms": 0.0}
RULES = BINARY.replace("at_least: 0.4", "at_least: 0.7").replace("margin: 0.5", "margin: 0.005")
MODEL = TeamModel(Path("models/price"), parse_spec(RULES, "models/price/model.yaml"))


@pytest.fixture
def env(tmp_path: Path) -> World:
    return World.at(tmp_path)


def rows(first: int = 0) -> pd.DataFrame:
    """Return houses numbered from `first`; the more rooms (around 0), the more likely a "Yes"."""
    random = np.random.default_rng(first)
    rooms = random.normal(0.0, 2.0, ROWS)
    target = np.where(rooms + random.normal(0.0, 1.0, ROWS) > 0, "Yes", "No")
    ids = [f"h{number}" for number in range(first, first + ROWS)]
    return pd.DataFrame({"house_id": ids, "rooms": rooms, "street": "Elm", "garden": 1, "price": target})


def tier(folder: Path, train: pd.DataFrame, holdout: pd.DataFrame) -> TierData:
    for name, frame in (("train", train), ("holdout", holdout)):
        (folder / name).mkdir(parents=True)
        pq.write_table(pa.Table.from_pandas(frame), folder / name / "rows.parquet")
    return DATA.model_copy(update={"folder": folder})


def trained(env: World, weights: dict[str, float]) -> TrainingResult:
    """Register a model with these weights and return it as `train` passes it on."""
    version = register(env, weights)
    artifact = artifact_of(env, version.version)
    changes = {"version": version.version, "run_id": version.run_id, "model_path": artifact}
    return TRAINED.model_copy(update={**changes, "model_digest": folder_digest(artifact)})


def says(env: World, model: TrainingResult, frame: pd.DataFrame) -> np.ndarray:
    return predict_challenger(env.tracking(), model, frame[list(SPEC.data.features)])


def judged(env: World, tmp_path: Path, challenger: dict[str, float], champion: dict[str, float] | None) -> Evaluation:
    """Evaluate one model against another on new rows."""
    holdout = rows(1000)
    data = tier(tmp_path / "tier", rows(0), holdout)
    theirs = says(env, trained(env, champion), holdout) if champion else None
    ours = says(env, trained(env, challenger), holdout)
    return evaluate_on_holdout(MODEL, data, holdout, ours, theirs, "1" if champion else "", seed=7)


def test_a_challenger_is_asked_for_the_rows_in_order(env: World) -> None:
    frame = rows()
    said = says(env, trained(env, GOOD_WEIGHTS), frame)
    assert said.shape == (ROWS, 2)
    assert np.array_equal(np.argsort(said[:, 1]), np.argsort(frame["rooms"].to_numpy()))


def test_a_challenger_whose_files_changed_since_training_is_not_even_loaded(env: World) -> None:
    model = trained(env, GOOD_WEIGHTS)
    (model.model_path / MODEL_FILE).write_text("this does not load")
    with pytest.raises(Rejected, match="does not load"):
        env.tracking().predict(model.model_path, rows())
    with pytest.raises(Refusal, match=r"version 1.*not the one that was trained.*Train again"):
        says(env, model, rows())


def test_a_champion_says_what_it_said_when_it_was_approved(env: World) -> None:
    model = trained(env, GOOD_WEIGHTS)
    release(env, model.version, model.model_digest)
    features = rows()[list(SPEC.data.features)]
    assert np.array_equal(predict_champion(env, MODEL, model.version, features), says(env, model, rows()))


def test_a_champion_whose_files_changed_is_not_loaded(env: World) -> None:
    model = trained(env, GOOD_WEIGHTS)
    release(env, model.version, model.model_digest)
    (model.model_path / MODEL_FILE).write_text("this does not load")
    with pytest.raises(Refusal, match="not those that were approved"):
        predict_champion(env, MODEL, model.version, rows())


def test_a_champion_of_another_holdout_rule_is_not_compared(env: World) -> None:
    version = register(env, GOOD_WEIGHTS, holdout=0.1)
    release(env, version.version, folder_digest(artifact_of(env, version.version)))
    data = tier(env.scratch / "tier", rows(0), rows(1000))
    with pytest.raises(Refusal, match="another holdout rule"):
        evaluate_challenger(env, MODEL, data, trained(env, GOOD_WEIGHTS))


def test_a_first_model_is_judged_by_its_floors_and_says_so(env: World, tmp_path: Path) -> None:
    evaluation = judged(env, tmp_path, GOOD_WEIGHTS, None)
    assert evaluation.verdict.outcome == "pass"
    assert "First model" in " ".join((*evaluation.verdict.reasons, *evaluation.verdict.notes))
    assert (evaluation.rows, evaluation.champion_metrics) == (ROWS, None)


def test_a_better_model_passes_against_its_champion(env: World, tmp_path: Path) -> None:
    evaluation = judged(env, tmp_path, GOOD_WEIGHTS, NO_WEIGHTS)
    assert evaluation.verdict.outcome == "pass"
    assert evaluation.champion_metrics is not None
    assert evaluation.metrics["auc"] > evaluation.champion_metrics["auc"]


def test_a_weak_model_is_held(env: World, tmp_path: Path) -> None:
    evaluation = judged(env, tmp_path, NO_WEIGHTS, GOOD_WEIGHTS)
    assert evaluation.verdict.outcome == "hold"
    assert any("auc" in reason for reason in evaluation.verdict.reasons)


def test_a_model_that_is_no_different_is_inconclusive(env: World, tmp_path: Path) -> None:
    assert judged(env, tmp_path, GOOD_WEIGHTS, {"rooms": 1.01}).verdict.outcome == "inconclusive"


def test_one_entity_on_both_sides_holds_the_best_model(env: World, tmp_path: Path) -> None:
    holdout = rows(1000)
    data = tier(tmp_path / "tier", pd.concat([rows(0), holdout[:1]]), holdout)
    evaluation = evaluate_on_holdout(
        MODEL, data, holdout, says(env, trained(env, GOOD_WEIGHTS), holdout), None, "", seed=7
    )
    assert (evaluation.leaked, evaluation.verdict.outcome) == (1, "hold")


def test_a_feature_that_gives_the_target_away_holds_the_best_model(env: World, tmp_path: Path) -> None:
    before, holdout = (frame.assign(garden=(frame["price"] == "No") * 1.0) for frame in (rows(0), rows(1000)))
    data = tier(tmp_path / "tier", before, holdout)
    evaluation = evaluate_on_holdout(
        MODEL, data, holdout, says(env, trained(env, GOOD_WEIGHTS), holdout), None, "", seed=7
    )
    assert (evaluation.verdict.outcome, evaluation.verdict.failed_gates) == ("hold", ("leak in garden",))
    assert evaluation.leak_search.checked_rows == ROWS


def test_a_sample_of_a_part_has_evenly_spaced_rows_of_all_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first in (0, 300, 500):
        frame = pd.DataFrame({"n": range(first, first + 300 if first == 0 else first + 200), "other": "x"})
        pq.write_table(pa.Table.from_pandas(frame), tmp_path / f"rows-{first:05}.parquet", row_group_size=70)
    monkeypatch.setattr("tasks.evaluation.rules.leaks.MAX_ROWS", 100)
    chosen, count = sample_rows(tmp_path, ["n"])
    assert (chosen["n"].tolist(), count) == (list(range(0, 700, 7)), 700)


def test_a_model_with_reversed_probabilities_is_refused_before_it_is_measured(env: World, tmp_path: Path) -> None:
    model = trained(env, GOOD_WEIGHTS)
    (model.model_path / CLASSES_FILE).write_text('["Yes", "No"]')
    reversed_model = model.model_copy(update={"model_digest": folder_digest(model.model_path)})
    data = tier(tmp_path / "tier", rows(0), rows(1000))
    with pytest.raises(Refusal, match=r"another order.*Yes, No.*Declare data.classes: \[Yes, No\]"):
        evaluate_challenger(env, MODEL, data, reversed_model)


def test_predictions_that_are_not_finite_are_never_judged(env: World, tmp_path: Path) -> None:
    holdout = rows(1000)
    said = says(env, trained(env, GOOD_WEIGHTS), holdout)
    said[7] = math.nan
    with pytest.raises(Refusal, match="not finite"):
        evaluate_on_holdout(MODEL, tier(tmp_path / "tier", rows(0), holdout), holdout, said, None, "", seed=7)


def test_only_metrics_that_are_numbers_go_on() -> None:
    assert finite_metrics({"auc": 0.8, "brier": math.nan, "r2": -math.inf, "rmse": math.inf, "mae": 0.0}) == {
        "auc": 0.8, "mae": 0.0,
    }  # fmt: skip
    assert finite_metrics({}) == {}


@pytest.mark.slow  # draws a plot
def test_verdict_metrics_report_and_plot_are_kept_with_run_and_version(
    env: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[dict[str, Any]] = []
    for name in ("create_markdown_artifact", "create_image_artifact"):
        monkeypatch.setattr(f"tasks.evaluation.tasks.{name}", lambda **given: shown.append(given))
    evaluation, model = judged(env, tmp_path, GOOD_WEIGHTS, None), trained(env, {"rooms": 2.0})
    store_evaluation(env.tracking(), evaluation, MODEL, model, "")
    run = env.tracking().run(model.run_id)
    assert run.metrics["holdout_auc"] == evaluation.metrics["auc"]
    assert run.tags["ratchet.verdict"] == "pass"
    version = env.tracking().version("price", model.version)
    assert version is not None
    assert version.tags["ratchet.verdict"] == "pass"
    kept = tmp_path / "runs" / model.run_id / "files" / "evaluation"
    assert json.loads((kept / "evaluation.json").read_text())["verdict"]["outcome"] == "pass"
    assert (kept / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    assert [each["key"] for each in shown] == ["evaluation", "evaluation-plot"]
    assert shown[0]["markdown"] == (kept / "evaluation.md").read_text()


def spend(env: World, version: str, days: float = 0.0, predictions: str = "", champion: str = "1") -> SpentLevel:
    """Return what the comparison of a version spends that many days from now."""
    challenger = TRAINED.model_copy(update={"version": version})
    at = NOW + timedelta(days=days)
    return spend_level(env, MODEL.spec, DATA, challenger, champion, predictions or f"of {version}", at)


def test_a_task_that_is_retried_spends_its_level_once(env: World) -> None:
    spend(env, "2")
    first = spend(env, "3", days=1)
    spend(env, "4", days=2)
    assert spend(env, "3", days=3) == first
    assert spend(env, "3", days=3, predictions="computed on other cores") == first
    assert [each.version for each in env.effects().comparisons("price", "local")] == ["2", "3", "4"]


def test_processes_that_compare_at_once_never_spend_the_same_part_of_the_budget(env: World) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: spend(env, str(number)), range(2, 34)))
    recorded = env.effects().comparisons("price", "local")
    assert [each.number for each in recorded] == list(range(1, 33))
    assert sorted(each.number for each in found) == list(range(1, 33))
    assert sum(each.level for each in recorded) == pytest.approx(max(each.spent for each in found))
    assert max(each.spent for each in found) < 0.05


def test_a_process_that_loses_the_race_for_a_number_plans_again(env: World, monkeypatch: pytest.MonkeyPatch) -> None:
    effects: Any = env.effects()
    read = effects.comparisons
    stale = iter([()])  # what it read before another process was first
    spend(env, "2")
    monkeypatch.setattr(effects, "comparisons", lambda *of: next(stale, read(*of)))
    assert spend(env, "3").number == 2


def test_a_ledger_that_fails_lets_nothing_be_compared(env: World) -> None:
    env.effects().fail_writes = 1  # type: ignore[attr-defined]
    with pytest.raises(Unavailable):
        spend(env, "2")
    assert spend(env, "2").number == 1


@pytest.fixture
def compared_with(env: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., EvaluationResult]:
    """Return a function that evaluates a good challenger against a weak, deployed champion."""
    for name in ("create_markdown_artifact", "create_image_artifact"):
        monkeypatch.setattr(f"tasks.evaluation.tasks.{name}", lambda **given: None)
    champion = trained(env, NO_WEIGHTS)
    release(env, champion.version, champion.model_digest)
    challenger, data = trained(env, GOOD_WEIGHTS), tier(tmp_path / "tier", rows(0), rows(1000))

    def evaluated(**changes: Any) -> EvaluationResult:
        return evaluate_challenger(env, MODEL, data.model_copy(update=changes), challenger)

    return evaluated


@pytest.mark.slow  # draws plots
def test_an_evaluation_that_is_repeated_has_the_same_verdict_with_the_recorded_level(
    env: World, compared_with: Callable[..., EvaluationResult]
) -> None:
    first = compared_with()
    assert first.spent_level is not None and first.verdict == "pass"
    assert first.spent_level.sentence in " ".join(first.reasons)
    for number in range(20):
        spend(env, f"night {number}", days=number)
    assert compared_with() == first


@pytest.mark.slow  # draws plots
def test_a_run_on_a_sample_spends_nothing_because_it_cannot_be_promoted(
    env: World, compared_with: Callable[..., EvaluationResult]
) -> None:
    assert compared_with(tier="development").spent_level is None
    assert env.effects().comparisons("price", "local") == ()


@pytest.mark.slow  # draws plots
def test_a_challenger_that_predicts_what_the_champion_does_spends_nothing(
    env: World, compared_with: Callable[..., EvaluationResult]
) -> None:
    release(env, "2", folder_digest(artifact_of(env, "2")), minutes=1)
    found = compared_with()
    assert (found.verdict, found.spent_level) == ("inconclusive", None)
    assert env.effects().comparisons("price", "local") == ()


# --- by time: compared on rows that neither was trained on

SOLD = BINARY.replace("  target:", "  time: sold_at\n  target:").replace("at_least: 0.4", "at_least: 0.7")
BY_TIME = TeamModel(Path("models/price"), parse_spec(SOLD.replace("margin: 0.5", "margin: 0.005"), "m.yaml"))
START = datetime(2026, 6, 1, tzinfo=UTC)
RULE = BY_TIME.spec.holdout_rule.text


def sold(first_day: int, seed: int) -> pd.DataFrame:
    """Return the houses of `rows`, one of which is sold every quarter of a day."""
    times = [START + timedelta(days=first_day + number / 4) for number in range(ROWS)]
    return rows(seed).assign(sold_at=pd.array(times, "datetime64[us, UTC]"))


def tier_by_time(folder: Path, gap_days: float = 0.0, late: float = 0.0) -> TierData:
    """Return a tier that trains on days 0 to 50 (`late` days more) and decides on days 51 to 101."""
    train, rule = sold(0, 0), HoldoutRule("time", 0.2, gap_days=gap_days, time="sold_at").text
    until = train["sold_at"].max() + timedelta(days=late)
    data = tier(folder, train, sold(51, 1000))
    return data.model_copy(update={"holdout_rule": rule, "trained_until": until.isoformat()})


def champion_until(env: World, days: float, rule: str = RULE) -> None:
    """Deploy version 1, which knows nothing, as trained by `rule` on rows until so many days after the first."""
    until = (START + timedelta(days=days)).isoformat()
    version = register(env, NO_WEIGHTS)
    tags = {"ratchet.holdout": rule, "ratchet.trained_until": until}
    env.tracking().tag_version("price", version.version, tags)
    release(env, version.version, folder_digest(artifact_of(env, version.version)))


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.evaluation.tasks.store_evaluation", lambda *_: None)


@pytest.mark.parametrize(
    ("until", "verdict"),
    [
        pytest.param(50.0, "pass", id="all rows are newer"),
        pytest.param(80.0, "pass", id="some rows are newer"),
        pytest.param(90.0, "inconclusive", id="too few rows are newer"),
        pytest.param(500.0, "inconclusive", id="no row is newer"),
    ],
)
@pytest.mark.usefixtures("silent")
def test_models_are_compared_on_rows_newer_than_what_the_champion_was_trained_on(
    env: World, tmp_path: Path, until: float, verdict: str
) -> None:
    champion_until(env, until)
    found = evaluate_challenger(env, BY_TIME, tier_by_time(tmp_path / "tier"), trained(env, GOOD_WEIGHTS))
    assert found.verdict == verdict
    since = (START + timedelta(days=until)).isoformat()
    assert found.compared_since == since
    newer = max(0, min(ROWS, ROWS - 1 - int((until - 51) * 4)))
    if verdict == "inconclusive":
        assert found.failed_gates == ("comparison",)
        assert found.champion_metrics == {}
        assert f"Only {newer} rows of the holdout are newer than {since}" in found.reasons[0]
    else:
        assert f"{newer:,} rows)" in " ".join(found.reasons)


@pytest.mark.usefixtures("silent")
def test_the_gap_counts_after_the_champions_training_rows_too(env: World, tmp_path: Path) -> None:
    champion_until(env, 80.0)
    data = tier_by_time(tmp_path / "tier", gap_days=0.9)
    assert evaluate_challenger(env, BY_TIME, data, trained(env, GOOD_WEIGHTS)).compared_since == (
        (START + timedelta(days=80.9)).isoformat()
    )


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("late", [2.0, -1.0], ids=["by the record", "by the rows"])
def test_holdout_rows_that_are_not_newer_than_training_hold_the_best_model(
    env: World, tmp_path: Path, late: float
) -> None:
    data = tier_by_time(tmp_path / "tier", late=late)
    if late < 0:  # the record says less than the rows
        data = data.model_copy(update={"trained_until": START.isoformat()})
        newer = pq.read_table(data.train).to_pandas()
        newer.loc[0, "sold_at"] = START + timedelta(days=51.75)
        pq.write_table(pa.Table.from_pandas(newer), data.train / "rows.parquet")
    found = evaluate_challenger(env, BY_TIME, data, trained(env, GOOD_WEIGHTS))
    assert found.verdict == "hold"
    assert "4 rows of the holdout are not newer than the training rows" in " ".join(found.reasons)
    assert found.failed_gates == ("",), "nobody may waive it"


def test_the_report_says_on_which_rows_the_models_were_compared(env: World, tmp_path: Path) -> None:
    data, holdout = tier_by_time(tmp_path / "tier"), sold(51, 1000)
    said = [says(env, trained(env, weights), holdout) for weights in (GOOD_WEIGHTS, NO_WEIGHTS)]
    since = START + timedelta(days=80)
    newer, newest = (comparable_rows(BY_TIME.spec, data, holdout, START + timedelta(days=days)) for days in (80, 99))
    evaluation = evaluate_on_holdout(BY_TIME, data, holdout, said[0], said[1], "2", 7, comparable=newer)
    report = evaluation_markdown(evaluation, model="price", version="2")
    assert f"Compared on the 83 rows newer than {since.isoformat()}" in report
    few = evaluate_on_holdout(BY_TIME, data, holdout, said[0], said[1], "2", 7, comparable=newest)
    assert "# 🟡 Inconclusive" in evaluation_markdown(few, model="price", version="2")
    assert evaluation_plot(few).startswith(b"\x89PNG")


def test_houses_that_are_sold_again_are_no_repeats_but_others_are(env: World, tmp_path: Path) -> None:
    train, later = sold(0, 0), sold(51, 0)
    until = train["sold_at"].max().isoformat()
    for again, gates in ((later, ()), (later.assign(house_id="x" + later["house_id"]), ("repeated rows",))):
        data = tier(tmp_path / f"tier-{len(gates)}", train, again)
        data = data.model_copy(update={"holdout_rule": RULE, "trained_until": until})
        said = says(env, trained(env, GOOD_WEIGHTS), again)
        found = evaluate_on_holdout(BY_TIME, data, again, said, None, "", seed=7)
        assert (found.leak_search.checked_rows, found.verdict.failed_gates) == (ROWS, gates)


def test_more_classes_read_fewer_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.Table.from_pandas(pd.DataFrame({"n": range(1000)})), tmp_path / "rows.parquet")
    monkeypatch.setattr("tasks.evaluation.rules.leaks.MAX_CELLS", 800)
    monkeypatch.setattr("tasks.evaluation.rules.leaks.MIN_SAMPLE", 60)
    assert [len(sample_rows(tmp_path, ["n"], classes)[0]) for classes in (0, 2, 8, 40)] == [800, 800, 100, 60]

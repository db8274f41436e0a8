"""Evaluation: both models predict rows that they never trained on, and only verified models are loaded."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.common.errors import Rejected
from blocks.tracking.fake import MODEL_FILE
from runtime.digests import folder_digest
from tasks.evaluation.rules.evaluation import Evaluation, finite_metrics
from tasks.evaluation.tasks import predict_challenger, predict_champion, store_evaluation
from tasks.shared.evaluation import evaluate_on_holdout
from tasks.shared.models import TeamModel
from tasks.shared.records import TierData, TrainingResult
from tasks.shared.rules.model.spec import parse_spec
from tasks.shared.rules.refusal import Refusal
from tests.fakes.environment import SPEC, World, artifact_of, register, release
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
    with pytest.raises(Refusal, match="another holdout rule"):
        predict_champion(env, MODEL, version.version, rows())


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

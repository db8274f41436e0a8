"""Trials of an experiment: one seed proposes the same ones, a failed trial is ignored, the best can be copied."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from blocks.tracking.fake import FakeTracking
from tasks.shared.models import TeamModel
from tasks.shared.records import Trial
from tasks.shared.rules.model.spec import parse_spec
from tasks.shared.rules.refusal import Refusal
from tasks.training.trials import close_experiment, experiment_markdown, open_study, report_trial, suggest_trial
from tests.fixtures.approval_requests import DATA
from tests.fixtures.spec_cases import BINARY, GOOD

MODEL = TeamModel(Path("models/price"), parse_spec(GOOD, "model.yaml"))


def ended(number: int, parameters: dict[str, Any], value: float | None) -> Trial:
    return Trial(
        number=number, parameters=parameters, value=value, run_id=f"run-{number}", run_url=f"http://runs/{number}"
    )


def search(model: TeamModel, trials: int, failing: tuple[int, ...] = ()) -> list[tuple[dict[str, Any], float | None]]:
    """Run a search in which more trees and a rate near 0.1 are better, and return the trials."""
    study = open_study(model)
    tried = []
    for _ in range(trials):
        number, parameters = suggest_trial(study, model)
        value = None if number in failing else abs(float(parameters["rate"]) - 0.1) - float(parameters["trees"]) / 1e4
        report_trial(study, ended(number, parameters, value))
        tried.append((parameters, value))
    return tried


def test_the_same_seed_tries_the_same_parameters() -> None:
    first = search(MODEL, 12, failing=(3,))
    assert search(MODEL, 12, failing=(3,)) == first
    assert len({json.dumps(parameters) for parameters, _ in first}) == 12


def test_another_seed_tries_other_parameters() -> None:
    training = MODEL.spec.training.model_copy(update={"seed": 8})
    other = TeamModel(MODEL.folder, MODEL.spec.model_copy(update={"training": training}))
    assert search(other, 3) != search(MODEL, 3)


def test_a_study_that_is_opened_again_and_told_the_same_goes_on_as_the_first() -> None:
    tried = search(MODEL, 8)
    again = open_study(MODEL)
    for parameters, value in tried[:6]:
        number, proposed = suggest_trial(again, MODEL)
        assert proposed == parameters
        report_trial(again, ended(number, proposed, value))
    assert [suggest_trial(again, MODEL)[1], suggest_trial(again, MODEL)[1]][0] == tried[6][0]


def test_trials_side_by_side_have_numbers_and_parameters_of_their_own() -> None:
    study = open_study(MODEL)
    batch = [suggest_trial(study, MODEL) for _ in range(4)]
    assert [number for number, _ in batch] == [0, 1, 2, 3]
    assert len({json.dumps(parameters) for _, parameters in batch}) == 4


def test_what_is_tried_lies_in_the_ranges_of_the_file() -> None:
    for parameters, _ in search(MODEL, 10):
        assert set(parameters) == {"trees", "rate", "loss"}
        assert isinstance(parameters["trees"], int)
        assert 10 <= parameters["trees"] <= 200
        assert 0.01 <= parameters["rate"] <= 1.0
        assert parameters["loss"] in ("squared", "absolute")


def test_a_failed_trial_is_told_as_failed_and_counts_for_nothing() -> None:
    study = open_study(MODEL)
    for value in (None, 3.0, 2.0):
        number, parameters = suggest_trial(study, MODEL)
        trial = ended(number, parameters, value)
        assert report_trial(study, trial) == trial
    assert [each.state for each in study.trials] == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert study.best_trial.number == 2


@pytest.mark.parametrize(
    ("text", "direction"),
    [(GOOD, optuna.study.StudyDirection.MINIMIZE), (BINARY, optuna.study.StudyDirection.MAXIMIZE)],
    ids=["rmse", "auc"],
)
def test_the_study_looks_for_what_is_better_by_the_metric(text: str, direction: optuna.study.StudyDirection) -> None:
    assert open_study(TeamModel(Path("models/price"), parse_spec(text, "model.yaml"))).direction == direction


def test_a_model_that_says_nothing_of_what_to_try_is_refused() -> None:
    nothing = TeamModel(MODEL.folder, MODEL.spec.model_copy(update={"search": {}}))
    with pytest.raises(Refusal, match=r"models/price/model\.yaml, key search.*nothing to search.*low"):
        open_study(nothing)


BEST = {"trees": 120, "rate": 0.05, "loss": "squared", "fast": True}
RANKED = [ended(4, BEST, 1.25), *(ended(number, {"trees": 10}, 2.0 + number) for number in range(5, 20))]


def test_the_best_parameters_can_be_pasted_as_json() -> None:
    text = experiment_markdown("price", DATA, RANKED, 20, "rmse")
    found = re.search(r"```json\n(.*?)\n```", text, re.DOTALL)
    assert found is not None
    assert json.loads(found[1]) == BEST


def test_the_command_of_the_summary_passes_the_best_parameters() -> None:
    text = experiment_markdown("price", DATA, RANKED, 20, "rmse")
    command = next(line for line in text.splitlines() if line.startswith("prefect deployment run"))
    words = shlex.split(command)
    assert words[:6] == ["prefect", "deployment", "run", "retrain/retrain", "-p", "model=price"]
    assert json.loads(words[-1].removeprefix("parameters=")) == BEST


def test_the_summary_says_how_many_were_tried_and_shows_the_ten_best() -> None:
    text = experiment_markdown("price", DATA, RANKED, 20, "rmse")
    assert "Best of 20 trials on the full tier: validation rmse 1.2500" in text
    rows = [line for line in text.splitlines() if line.startswith("| ") and "[run]" in line]
    assert [int(row.split("|")[1]) for row in rows] == [4, 5, 6, 7, 8, 9, 10, 11, 12, 13]
    assert "[run](<http://runs/4>)" in rows[0]


def test_an_experiment_is_closed_with_its_best_metric_and_ranks_its_trials(tmp_path: Path) -> None:
    tracking = FakeTracking(root=tmp_path / "runs")
    run = tracking.open_run("price", key="experiment", name="experiment")
    trials = [ended(0, {"trees": 10}, 2.0), ended(1, {"trees": 20}, None), ended(2, {"trees": 30}, 1.5)]
    assert [trial.number for trial in close_experiment(tracking, MODEL, trials, run.id)] == [2, 0]
    assert tracking.run(run.id).status == "FINISHED"
    assert tracking.run(run.id).metrics == {"best_validation_rmse": 1.5}


def test_an_experiment_without_a_metric_fails_and_is_refused(tmp_path: Path) -> None:
    tracking = FakeTracking(root=tmp_path / "runs")
    run = tracking.open_run("price", key="experiment", name="experiment")
    with pytest.raises(Refusal, match="none of 2 trials gave a metric"):
        close_experiment(tracking, MODEL, [ended(0, {}, None), ended(1, {}, None)], run.id)
    assert tracking.run(run.id).status == "FAILED"

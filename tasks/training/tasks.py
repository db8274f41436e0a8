"""Prefect tasks of training: estimate the cost, train a challenger, backtest it, run the trials of an experiment."""

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
from prefect import get_run_logger, task
from prefect.runtime import flow_run

from blocks.environment import Environment, open_environment
from blocks.tracking.base import Tracking
from tasks.evaluation.rules.metrics import compute_metric
from tasks.evaluation.rules.predictions import check_predictions, encode_truth
from tasks.shared.code import code_provenance
from tasks.shared.cost import estimate_of_bill, read_prices, uses_local_trainer, worst_case_costs
from tasks.shared.models import TeamModel, load_model
from tasks.shared.records import CostEstimate, EvaluationResult, TierData, TrainingResult, Trial
from tasks.shared.reports import create_image_artifact, create_markdown_artifact, only_reports
from tasks.shared.retries import TASK_OPTIONS
from tasks.shared.rules.cost.budget import check_budget, cost_markdown
from tasks.shared.rules.figures import png_url
from tasks.shared.rules.model.holdout import parse_holdout_rule
from tasks.shared.tiers import divide_again, newest_time
from tasks.training.jobs import (
    ParameterValue,
    open_training_run,
    resolve_hyperparameters,
    train_and_register,
    train_unregistered,
)
from tasks.training.rules.backtests import (
    BacktestFigure,
    Backtests,
    Division,
    backtest_divisions,
    backtests_json,
    backtests_markdown,
    backtests_plot,
    few_rows_problem,
    finite_or_problem,
)
from tasks.training.trials import close_experiment, experiment_markdown, train_trial
from tasks.validation.rules.parquet_rows import to_frame


@task(name="estimate cost", **TASK_OPTIONS)
def estimate_cost(
    model: str, data: TierData, environment: str, trials: int = 1, *, include_serving: bool = False
) -> CostEstimate:
    """Estimate the worst-case cost of the run, and refuse the run when it exceeds the model's budget.

    `trials` is how many trainings the run makes. `include_serving` says whether this run may deploy the model, which
    costs money from then on.
    """
    env, team_model = open_environment(environment), load_model(model)
    small = uses_local_trainer(env, team_model, data)
    trainer = env.trainer_for(small=small)
    price_table, now = read_prices(), datetime.now(UTC)
    costs = worst_case_costs(env, team_model, trainer, price_table, now, trials=trials, include_serving=include_serving)
    budget = team_model.spec.budget
    few = f": {data.train_rows} rows are few enough for the local trainer." if small else "."
    trainer_text = f"It trains with {type(trainer).__name__}{few}"
    create_markdown_artifact(
        key="cost", markdown=cost_markdown(costs, budget, model, trainer_text), description="Worst case"
    )
    check_budget(costs, budget, model)
    get_run_logger().info("worst case of this run: %s", costs.run.explanation)
    return estimate_of_bill(costs, trials, use_local_trainer=small)


@task(name="train", **TASK_OPTIONS)
def train(
    model: str, data: TierData, cost_estimate: CostEstimate, parameters: Mapping[str, ParameterValue], environment: str
) -> TrainingResult:
    """Train on the tier's training rows, register the model as a version, and return it.

    `cost_estimate` says which trainer is used. `parameters` override those of `model.yaml`, the seed included.
    """
    env, team_model = open_environment(environment), load_model(model)
    key, log = f"{flow_run.id}:train", get_run_logger().info
    return train_and_register(env, team_model, data, cost_estimate, parameters, key=key, log=log)


@task(name="backtest", **TASK_OPTIONS)
def backtest(
    model: str,
    data: TierData,
    cost_estimate: CostEstimate,
    training_result: TrainingResult,
    evaluation_result: EvaluationResult,
    environment: str,
) -> str:
    """Train again at earlier cut-offs and by hash, report the figures, and return the note, "" without one.

    It only reports: its failure is a note that the approvers see, and does not fail the run. After a transient error
    the task runs again, and finds the trainings that were paid.
    """
    env, team_model = open_environment(environment), load_model(model)
    key, log, warn = f"{flow_run.id}:backtest", get_run_logger().debug, get_run_logger().warning
    work = (data, cost_estimate, training_result, evaluation_result)
    with only_reports("the report of the backtests") as report:
        found = run_backtests(env, team_model, *work, key=key, log=log)
        store_backtests(env.tracking(), model, training_result, found)
        note = found.note
    if report.problem:
        note = f"The backtests failed: {report.problem}"
        with only_reports("the note that the backtests failed"):
            _store_files(env.tracking(), training_result, {"backtests.json": json.dumps({"note": note}).encode()})
    if note:
        warn(note)
    return note


@task(name="open experiment", **TASK_OPTIONS)
def open_experiment_run(model: str, data: TierData, environment: str) -> str:
    """Open the parent run of all trials, and return its id."""
    env, team_model = open_environment(environment), load_model(model)
    chosen, key = resolve_hyperparameters(team_model, {}), f"{flow_run.id}:experiment"
    return open_training_run(env.tracking(), team_model, data, code_provenance(model=model), chosen, key=key).id


@task(name="run trial", task_run_name="trial {number}", **TASK_OPTIONS)
def run_trial(
    model: str,
    data: TierData,
    cost_estimate: CostEstimate,
    number: int,
    parameters: dict[str, ParameterValue],
    parent: str,
    environment: str,
) -> Trial:
    """Train one trial on the training rows, and return its validation metric, or the reason of its failure."""
    env, team_model = open_environment(environment), load_model(model)
    key, log = f"{flow_run.id}:trial:{number}", get_run_logger().debug
    return train_trial(env, team_model, data, cost_estimate, number, parameters, parent=parent, key=key, log=log)


@task(name="conclude experiment", **TASK_OPTIONS)
def conclude_experiment(
    model: str, data: TierData, trials: Sequence[Trial], experiment_run_id: str, environment: str
) -> Trial:
    """Close the experiment and show its best trial, ready to paste or to hand to `retrain`.

    Raises:
        Refusal: no trial ended with a finite metric.
    """
    env, team_model = open_environment(environment), load_model(model)
    ranked = close_experiment(env.tracking(), team_model, trials, experiment_run_id)
    metric = team_model.spec.evaluation.comparison.metric
    markdown = experiment_markdown(model, data, ranked, len(trials), metric)
    create_markdown_artifact(key="experiment", markdown=markdown)
    return ranked[0]


TrainFunction = Callable[[TierData, Division, Path], Path]
"""Trains on the training rows of a division, and returns the folder of the model below the one that is given."""


def run_backtests(
    env: Environment,
    model: TeamModel,
    data: TierData,
    cost_estimate: CostEstimate,
    training_result: TrainingResult,
    evaluation_result: EvaluationResult,
    *,
    key: str,
    log: Callable[[str], None],
) -> Backtests:
    """Train and measure on each division, with the parameters of the version. A division that fails says why."""

    def train(divided: TierData, division: Division, work: Path) -> Path:
        own = f"{key}:{division.name}"
        return train_unregistered(
            env, model, divided, cost_estimate, training_result, work, key=own, words=division.words, log=log
        )

    def figure(division: Division) -> BacktestFigure:
        with only_reports(f"the backtest of {division.words}") as report:
            divided = divide_again(env.engine(), data, model.spec, division)
            measured = measure_division(env, model, divided, division, train)
        if report.problem:  # the other divisions follow
            return BacktestFigure(division, problem=f"failed: {report.problem}", failed=True)
        return measured

    rule, cut_off = parse_holdout_rule(data.holdout_rule), datetime.fromisoformat(data.cut_off)
    newest = newest_time(env.engine(), data, rule.time)
    windows, by_hash = backtest_divisions(
        rule, cut_off, newest, model.spec.evaluation.backtests, data.holdout_rows / data.all_rows
    )
    terms = model.spec.evaluation.comparison
    own = Division("0", rule, cut_off, newest)
    measured = finite_or_problem(evaluation_result.metrics.get(terms.metric, math.nan))
    return Backtests(
        terms,
        BacktestFigure(own, data.train_rows, data.holdout_rows, *measured),
        tuple(map(figure, windows)),
        figure(by_hash),
    )


def measure_division(
    env: Environment, model: TeamModel, divided: TierData, division: Division, train: TrainFunction
) -> BacktestFigure:
    """Return the metric of the comparison on the holdout rows of the division, of a model that `train` makes."""
    spec, counts = model.spec, (divided.train_rows, divided.holdout_rows)
    if problem := few_rows_problem(*counts, spec.evaluation.minimum_rows):
        return BacktestFigure(division, *counts, problem=problem)
    rows = to_frame(pq.read_table(divided.holdout))
    env.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="backtest-", dir=env.scratch) as work:
        predicted = env.tracking().predict(train(divided, division, Path(work)), rows[list(spec.data.features)])
    codes = encode_truth(spec.task, spec.data.classes, rows[spec.data.target])
    checked = check_predictions(spec.task, spec.data.classes, len(rows), predicted)
    value = compute_metric(spec.task, spec.evaluation.comparison.metric, codes, checked)
    return BacktestFigure(division, *counts, *finite_or_problem(value))


def store_backtests(tracking: Tracking, model: str, training_result: TrainingResult, found: Backtests) -> None:
    """Store report, figures and plot with the version's run, and as artifacts of the flow run."""
    report, plot = backtests_markdown(found, model=model, version=training_result.version), backtests_plot(found)
    figures = {each.division.name: each.value for each in (*found.windows, found.by_hash) if each.value is not None}
    metrics = {f"backtest_{name}_{found.terms.metric}": value for name, value in figures.items()}
    tracking.log(training_result.run_id, metrics=metrics)
    files = {"backtests.md": report.encode(), "backtests.json": backtests_json(found).encode(), "backtests.png": plot}
    _store_files(tracking, training_result, files)
    create_markdown_artifact(key="backtests", markdown=report, description=f"{model} version {training_result.version}")
    create_image_artifact(
        key="backtests-plot", image_url=png_url(plot), description="The metric by cut-off, and by hash"
    )


def _store_files(tracking: Tracking, training_result: TrainingResult, files: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        tracking.log_files(training_result.run_id, Path(folder), artifact_folder="evaluation")

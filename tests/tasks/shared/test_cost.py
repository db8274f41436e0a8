"""Cost of paid work: the worst case is known before a training, and the actual cost is logged after it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prefect.logging import disable_run_logger

from blocks.common.errors import JobFailed
from blocks.endpoints.fake import FakeEndpoint
from blocks.records.compute import EndpointCompute
from blocks.trainers.base import TrainingJob
from tasks.shared.cost import (
    log_job_cost,
    log_worst_case,
    max_seconds,
    uses_local_trainer,
    worst_case_costs,
)
from tasks.shared.models import TeamModel
from tasks.shared.rules.cost.spent import COST_METRIC, FAILED_COST_METRIC, WORST_CASE_TAG, month_to_date_cost
from tasks.shared.rules.model.parts import BudgetSpec
from tasks.shared.rules.refusal import Refusal
from tasks.training.jobs import run_training_job
from tests.fakes.environment import NOW, SPEC, World
from tests.fixtures.approval_requests import DATA
from tests.fixtures.costs import COSTED, HOUR, PAID, PRICES, paid_trainer


@pytest.fixture
def env(tmp_path: Path) -> World:
    return World.at(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> TeamModel:
    (tmp_path / "price").mkdir()
    (tmp_path / "price" / "train.py").touch()
    return TeamModel(tmp_path / "price", SPEC)


def job(model: TeamModel) -> TrainingJob:
    return TrainingJob("price-1", model.folder, {}, max_seconds=max_seconds(model))


def run_of(env: World, key: str = "flow:train") -> Any:
    return env.tracking().open_run(SPEC.name, key=key, name="price on production")


def test_what_runs_here_is_free_and_asks_nobody_for_prices(env: World, model: TeamModel) -> None:
    bill = worst_case_costs(env, model, env.trainer(), PRICES, NOW, include_serving=True)
    assert (bill.run.is_paid, bill.serving.is_paid, bill.month_usd) == (False, False, 0.0)
    assert "this machine" in bill.run.explanation


def test_a_paid_training_is_priced_by_the_limit_of_the_model(env: World, model: TeamModel) -> None:
    bill = worst_case_costs(env, model, paid_trainer(env), PRICES, NOW, trials=3)
    assert bill.run.usd == pytest.approx(3 * HOUR * SPEC.training.max_minutes / 60)
    assert not bill.serving.is_paid


def test_serving_is_priced_when_the_model_may_serve(env: World, model: TeamModel) -> None:
    env._adapters["endpoint"] = FakeEndpoint(fixed_compute=EndpointCompute("ml.m5.large", "us-east-1"))
    assert worst_case_costs(env, model, env.trainer(), PRICES, NOW, include_serving=True).serving.usd == pytest.approx(
        HOUR * 730
    )
    assert not worst_case_costs(env, model, env.trainer(), PRICES, NOW).serving.is_paid


def test_an_instance_without_a_price_is_refused_before_it_is_asked_for(env: World, model: TeamModel) -> None:
    trainer = paid_trainer(env)
    trainer.fixed_compute = replace(PAID, instance_types=("ml.z1.huge",))
    with pytest.raises(Refusal, match="ml.z1.huge"):
        worst_case_costs(env, model, trainer, PRICES, NOW)
    assert trainer.started == ()


def test_the_month_so_far_counts_other_runs_of_the_model(env: World, model: TeamModel) -> None:
    trainer, tracking = paid_trainer(env), env.tracking()
    tracking.log(run_of(env, "one").id, metrics={COST_METRIC: 2.0})
    tracking.close_run(run_of(env, "one").id, "FINISHED")
    tracking.log(run_of(env, "two").id, tags={WORST_CASE_TAG: "3.0"})
    assert worst_case_costs(env, model, trainer, PRICES, NOW).month_to_date_usd == 5.0


def test_small_work_goes_to_the_unpaid_trainer_where_there_is_one(env: World, model: TeamModel) -> None:
    few = TeamModel(model.folder, SPEC.model_copy(update={"budget": BudgetSpec(local_rows=DATA.train_rows)}))
    none = TeamModel(model.folder, SPEC.model_copy(update={"budget": BudgetSpec(local_rows=DATA.train_rows - 1)}))
    assert not uses_local_trainer(env, few, DATA)
    with_one = env.model_copy(update={"small_trainer_adapter": "trainer"})
    assert uses_local_trainer(with_one, few, DATA)
    assert not uses_local_trainer(with_one, none, DATA)


def test_the_worst_case_is_written_before_and_the_cost_after(env: World, model: TeamModel) -> None:
    trainer, tracking, run = paid_trainer(env, billable_seconds=36.0), env.tracking(), run_of(env)
    seen: list[str] = []
    with disable_run_logger():
        done, cost = run_training_job(trainer, tracking, run, job(model), COSTED,
                              log=lambda _line: seen.append(tracking.run(run.id).tags[WORST_CASE_TAG]))  # fmt: skip
    assert seen == ["0.020000"]
    assert (cost, tracking.run(run.id).metrics[COST_METRIC]) == (pytest.approx(HOUR / 100), pytest.approx(HOUR / 100))
    assert done.billable_seconds == 36.0


def test_a_failed_attempt_is_paid_and_stays_in_the_sum(env: World, model: TeamModel) -> None:
    trainer, tracking, run = paid_trainer(env, billable_seconds=36.0, failing_attempts=1), env.tracking(), run_of(env)
    with disable_run_logger():
        with pytest.raises(JobFailed):
            run_training_job(trainer, tracking, run, job(model), COSTED, log=print)
        failed = tracking.run(run.id)
        assert (failed.status, failed.metrics[FAILED_COST_METRIC]) == ("FAILED", pytest.approx(HOUR / 100))
        again = run_of(env)
        assert month_to_date_cost([again], NOW) == pytest.approx(HOUR / 100 + 0.02)
        _done, cost = run_training_job(trainer, tracking, again, job(model), COSTED, log=print)
        assert cost == pytest.approx(2 * HOUR / 100)
        assert log_job_cost(tracking, run.id, trainer, job(model)) == cost


def test_a_job_that_runs_on_has_no_cost_yet_and_counts_with_its_worst_case(env: World, model: TeamModel) -> None:
    trainer, tracking, run = paid_trainer(env, billable_seconds=36.0), env.tracking(), run_of(env)
    trainer.polls_in_progress = 5
    trainer.submit(job(model))
    log_worst_case(tracking, run, COSTED)
    assert log_job_cost(tracking, run.id, trainer, job(model)) is None
    tracking.close_run(run.id, "FAILED")  # as when the service no longer responded
    assert month_to_date_cost(tracking.runs(SPEC.name), NOW) == pytest.approx(0.02)


def test_a_job_that_never_began_cost_nothing(env: World, model: TeamModel) -> None:
    trainer, tracking, run = paid_trainer(env), env.tracking(), run_of(env)
    missing = replace(job(model), channels={"train": Path("gone")})
    with disable_run_logger(), pytest.raises(Exception, match="gone"):
        run_training_job(trainer, tracking, run, missing, COSTED, log=print)
    assert tracking.run(run.id).metrics[COST_METRIC] == 0.0


def test_a_cost_that_cannot_be_known_leaves_the_worst_case(env: World, model: TeamModel) -> None:
    trainer, tracking, run = paid_trainer(env), env.tracking(), run_of(env)
    trainer.fixed_compute = replace(PAID, region="mars-1")
    with disable_run_logger():
        _done, cost = run_training_job(trainer, tracking, run, job(model), COSTED, log=print)
    assert cost == COSTED.worst_case_usd
    tracking.close_run(run.id, "FINISHED")
    assert month_to_date_cost(tracking.runs(SPEC.name), NOW) == COSTED.worst_case_usd


def test_work_here_logs_that_it_cost_nothing(env: World, model: TeamModel) -> None:
    run, free = run_of(env), COSTED.model_copy(update={"is_paid": False, "worst_case_usd": 0.0})
    with disable_run_logger():
        run_training_job(env.trainer(), env.tracking(), run, job(model), free, log=print)
    found = env.tracking().run(run.id)
    assert found.metrics[COST_METRIC] == 0.0 and WORST_CASE_TAG not in found.tags

"""The gate in the way of a training: what it may cost is known before, what it did cost is logged after."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prefect.logging import disable_run_logger

from blocks.common.compute import Compute, Hosting
from blocks.common.errors import JobFailed
from blocks.endpoints.fake import FakeEndpoint
from blocks.trainers.base import TrainingJob
from blocks.trainers.fake import FakeTrainer
from tasks.shared.cost import is_small, make_bill, max_seconds, read_prices, reserve, settle
from tasks.shared.models import Model
from tasks.shared.records import Costed
from tasks.shared.rules.cost.spent import COST, FAILED, WORST, month_to_date
from tasks.shared.rules.model.parts import Budget
from tasks.shared.rules.refusal import Refusal
from tasks.training.jobs import run_paid
from tests.tasks.approval.test_requests import DATA
from tests.tasks.shared.test_champion import NOW, SPEC, World

PAID = Compute(("ml.m5.large",), "us-east-1")
COSTED = Costed(small=False, paid=True, worst_usd=0.02, serving_usd_month=None, words="0.02 USD")
HOUR = 0.115
PRICES = read_prices().model_copy(update={"date": NOW.date().isoformat()})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


def paid_trainer(world: World, **knobs: Any) -> FakeTrainer:
    trainer = FakeTrainer(root=world.scratch / "paid", looks=0, asks_for=PAID, **knobs)
    world._adapters["trainer"] = trainer
    return trainer


@pytest.fixture
def model(tmp_path: Path) -> Model:
    (tmp_path / "price").mkdir()
    (tmp_path / "price" / "train.py").touch()
    return Model(tmp_path / "price", SPEC)


def job(model: Model) -> TrainingJob:
    return TrainingJob("price-1", model.folder, {}, max_seconds=max_seconds(model))


def run_of(world: World, key: str = "flow:train") -> Any:
    return world.tracking().open_run(SPEC.name, key=key, name="price on production")


def test_what_runs_here_is_free_and_asks_nobody_for_prices(world: World, model: Model) -> None:
    bill = make_bill(world, model, world.trainer(), PRICES, NOW, to_serve=True)
    assert (bill.training.paid, bill.serving.paid, bill.month_usd) == (False, False, 0.0)
    assert "this machine" in bill.training.words


def test_a_paid_training_is_priced_by_the_limit_of_the_model(world: World, model: Model) -> None:
    bill = make_bill(world, model, paid_trainer(world), PRICES, NOW, trials=3)
    assert bill.training.usd == pytest.approx(3 * HOUR * SPEC.training.max_minutes / 60)
    assert not bill.serving.paid


def test_serving_is_priced_when_the_model_may_serve(world: World, model: Model) -> None:
    world._adapters["endpoint"] = FakeEndpoint(asks_for=Hosting("ml.m5.large", "us-east-1"))
    assert make_bill(world, model, world.trainer(), PRICES, NOW, to_serve=True).serving.usd == pytest.approx(HOUR * 730)
    assert not make_bill(world, model, world.trainer(), PRICES, NOW).serving.paid


def test_an_instance_without_a_price_is_refused_before_it_is_asked_for(world: World, model: Model) -> None:
    trainer = paid_trainer(world)
    trainer.asks_for = replace(PAID, instance_types=("ml.z1.huge",))
    with pytest.raises(Refusal, match="ml.z1.huge"):
        make_bill(world, model, trainer, PRICES, NOW)
    assert trainer.started == ()


def test_the_month_so_far_counts_other_runs_of_the_model(world: World, model: Model) -> None:
    trainer, tracking = paid_trainer(world), world.tracking()
    tracking.log(run_of(world, "one").id, metrics={COST: 2.0})
    tracking.close_run(run_of(world, "one").id, "FINISHED")
    tracking.log(run_of(world, "two").id, tags={WORST: "3.0"})
    assert make_bill(world, model, trainer, PRICES, NOW).month_to_date_usd == 5.0


def test_small_work_goes_to_the_unpaid_trainer_where_there_is_one(world: World, model: Model) -> None:
    few = Model(model.folder, SPEC.model_copy(update={"budget": Budget(local_rows=DATA.train_rows)}))
    none = Model(model.folder, SPEC.model_copy(update={"budget": Budget(local_rows=DATA.train_rows - 1)}))
    assert not is_small(world, few, DATA)
    with_one = world.model_copy(update={"small_trainer_adapter": "trainer"})
    assert is_small(with_one, few, DATA)
    assert not is_small(with_one, none, DATA)


def test_the_worst_case_is_written_before_and_the_cost_after(world: World, model: Model) -> None:
    trainer, tracking, run = paid_trainer(world, billed=36.0), world.tracking(), run_of(world)
    seen: list[str] = []
    with disable_run_logger():
        done, cost = run_paid(trainer, tracking, run, job(model), COSTED,
                              log=lambda _line: seen.append(tracking.run(run.id).tags[WORST]))  # fmt: skip
    assert seen == ["0.020000"]
    assert (cost, tracking.run(run.id).metrics[COST]) == (pytest.approx(HOUR / 100), pytest.approx(HOUR / 100))
    assert done.billable_seconds == 36.0


def test_a_failed_attempt_is_paid_and_stays_in_the_sum(world: World, model: Model) -> None:
    trainer, tracking, run = paid_trainer(world, billed=36.0, fail_first=1), world.tracking(), run_of(world)
    with disable_run_logger():
        with pytest.raises(JobFailed):
            run_paid(trainer, tracking, run, job(model), COSTED, log=print)
        failed = tracking.run(run.id)
        assert (failed.status, failed.metrics[FAILED]) == ("FAILED", pytest.approx(HOUR / 100))
        again = run_of(world)
        assert month_to_date([again], NOW) == pytest.approx(HOUR / 100 + 0.02)
        _done, cost = run_paid(trainer, tracking, again, job(model), COSTED, log=print)
        assert cost == pytest.approx(2 * HOUR / 100)
        assert settle(tracking, run.id, trainer, job(model)) == cost


def test_a_job_that_runs_on_has_no_cost_yet_and_counts_with_its_worst_case(world: World, model: Model) -> None:
    trainer, tracking, run = paid_trainer(world, billed=36.0), world.tracking(), run_of(world)
    trainer.looks = 5
    trainer.submit(job(model))
    reserve(tracking, run, COSTED)
    assert settle(tracking, run.id, trainer, job(model)) is None
    tracking.close_run(run.id, "FAILED")  # as when the service did not answer any more
    assert month_to_date(tracking.runs(SPEC.name), NOW) == pytest.approx(0.02)


def test_a_job_that_never_began_cost_nothing(world: World, model: Model) -> None:
    trainer, tracking, run = paid_trainer(world), world.tracking(), run_of(world)
    missing = replace(job(model), channels={"train": Path("gone")})
    with disable_run_logger(), pytest.raises(Exception, match="gone"):
        run_paid(trainer, tracking, run, missing, COSTED, log=print)
    assert tracking.run(run.id).metrics[COST] == 0.0


def test_a_cost_that_cannot_be_known_leaves_the_worst_case(world: World, model: Model) -> None:
    trainer, tracking, run = paid_trainer(world), world.tracking(), run_of(world)
    trainer.asks_for = replace(PAID, region="mars-1")
    with disable_run_logger():
        _done, cost = run_paid(trainer, tracking, run, job(model), COSTED, log=print)
    assert cost == COSTED.worst_usd
    tracking.close_run(run.id, "FINISHED")
    assert month_to_date(tracking.runs(SPEC.name), NOW) == COSTED.worst_usd


def test_work_here_logs_that_it_cost_nothing(world: World, model: Model) -> None:
    run, free = run_of(world), COSTED.model_copy(update={"paid": False, "worst_usd": 0.0})
    with disable_run_logger():
        run_paid(world.trainer(), world.tracking(), run, job(model), free, log=print)
    found = world.tracking().run(run.id)
    assert found.metrics[COST] == 0.0 and WORST not in found.tags

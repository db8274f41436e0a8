"""What a flow run that was cancelled or crashed leaves: no job that is paid for, and its cost known."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from blocks.common.errors import Unavailable
from blocks.common.jobs import JobStatus
from blocks.trainers.base import TrainingJob
from blocks.trainers.fake import FakeTrainer
from blocks.transforms.base import Part, TransformJob
from blocks.transforms.fake import FakeTransform
from tasks.batch.rules.place import TRANSFORM
from tasks.shared.cost import reserve
from tasks.shared.rules.cost.spent import COST, FAILED
from tasks.training.jobs import job_name
from tasks.training.stopping import stop_jobs, stop_transforms
from tests.tasks.shared.test_champion import SPEC, World
from tests.tasks.shared.test_cost import COSTED, HOUR, PAID

NAME = SPEC.name


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World.at(tmp_path)
    made._adapters["trainer"] = FakeTrainer(root=tmp_path / "paid", looks=9, asks_for=PAID, billed=36.0)
    return made


def at_work(world: World, flow_run: str, key: str = "train", trainer: Any = None) -> tuple[str, str]:
    """Open a tracked run and submit its job, as a flow run that then disappears; return the ids of both."""
    tags = {"ratchet.flow_run": flow_run}
    run = world.tracking().open_run(NAME, key=f"{flow_run}:{key}", name="price on production", tags=tags)
    program = world.scratch / "program"
    program.mkdir(parents=True, exist_ok=True)
    (program / "train.py").touch()
    reserve(world.tracking(), run, COSTED)
    (trainer or world.trainer()).submit(TrainingJob(job_name(NAME, run.id), program, {}))
    return run.id, job_name(NAME, run.id)


def stopped(world: World, flow_run: str, *, given_up: bool = True, said: list[str] | None = None) -> list[str]:
    told: list[str] = [] if said is None else said
    return stop_jobs(world, NAME, flow_run, lambda: given_up, told.append)


def test_the_jobs_of_that_flow_run_alone_are_stopped_and_its_runs_closed_with_their_cost(world: World) -> None:
    (run, job), (trial, other), (_, theirs) = (at_work(world, "mine"), at_work(world, "mine", "trial:1"),
                                               at_work(world, "theirs"))  # fmt: skip
    assert stopped(world, "mine") == [job, other]
    assert [world.trainer().state(name).status for name in (job, other)] == [JobStatus.stopped] * 2
    assert world.trainer().state(theirs).status is JobStatus.in_progress
    tracking = world.tracking()
    assert {tracking.run(each).status for each in (run, trial)} == {"FAILED"}
    assert all(COST in tracking.run(each).metrics for each in (run, trial))


def test_what_is_said_twice_is_paid_once(world: World) -> None:
    run, _ = at_work(world, "mine")
    stopped(world, "mine")
    once = world.tracking().run(run).metrics[FAILED]
    stopped(world, "mine")
    assert world.tracking().run(run).metrics[FAILED] == once < HOUR


def test_a_flow_run_that_a_person_has_retried_keeps_its_job(world: World) -> None:
    run, job = at_work(world, "mine")
    assert stopped(world, "mine", given_up=False) == []
    assert world.trainer().state(job).status is JobStatus.in_progress
    assert world.tracking().run(run).status == "RUNNING"


def test_the_job_of_the_trainer_for_small_work_is_stopped_too(world: World, tmp_path: Path) -> None:
    small = FakeTrainer(root=tmp_path / "small", looks=9)
    world._adapters["small"] = small
    with_small = world.model_copy(update={"small_trainer_adapter": "small"})
    _, job = at_work(world, "mine", trainer=small)
    assert stopped(with_small, "mine") == [job]
    assert small.state(job).status is JobStatus.stopped


class Deaf(FakeTrainer):
    """A trainer whose service does not answer."""

    _block_type_slug = "ratchet-trainer-deaf"

    def stop(self, name: str) -> None:
        raise Unavailable(f"stopping job {name}: no answer")


def test_a_job_that_cannot_be_stopped_is_said_and_its_worst_case_stays(world: World, tmp_path: Path) -> None:
    run, job = at_work(world, "mine")
    world._adapters["trainer"] = Deaf(root=tmp_path / "deaf", asks_for=PAID)
    said: list[str] = []
    assert stopped(world, "mine", said=said) == []
    assert f"{job} could not be stopped, and may run until its own limit" in said[0]
    found = world.tracking().run(run)
    assert found.status == "FAILED" and COST not in found.metrics


def test_the_transform_job_of_a_scoring_that_was_cancelled_is_stopped(world: World) -> None:
    transform = FakeTransform(looks=9)
    world._adapters["transform"] = transform
    job = TransformJob("price-score-1", world.scratch, "3", "d", 60)
    transform.submit(job, [Part(b"{}", pa.table({"key": ["a"]}))])
    tags = {"ratchet.flow_run": "mine", TRANSFORM: job.name}
    run = world.tracking().open_run(NAME, key="score", name="scoring", tags=tags)
    assert stop_transforms(world, NAME, "mine", lambda: True, print) == []
    with_one = world.model_copy(update={"transform_adapter": "transform"})
    assert stop_transforms(with_one, NAME, "theirs", lambda: True, print) == []
    assert stop_transforms(with_one, NAME, "mine", lambda: True, print) == [job.name]
    assert transform.state(job.name).status is JobStatus.stopped
    assert world.tracking().run(run.id).status == "FAILED"


def test_a_run_that_had_ended_is_left_as_it_is(world: World) -> None:
    run, _ = at_work(world, "mine")
    world.tracking().log(run, metrics={COST: 1.25})
    world.tracking().close_run(run, "FINISHED")
    stopped(world, "mine")
    found = world.tracking().run(run)
    assert (found.status, found.metrics[COST]) == ("FINISHED", 1.25)

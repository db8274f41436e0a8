"""Stopping of jobs: a cancelled or crashed flow run leaves no running paid job, and its cost is known."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from blocks.batch_inference.base import BatchInferenceJob, RequestPart
from blocks.batch_inference.fake import FakeBatchInference
from blocks.common.errors import Unavailable
from blocks.common.jobs import JobStatus
from blocks.trainers.base import TrainingJob
from blocks.trainers.fake import FakeTrainer
from flows.stopping import stop_batch_jobs_of, stop_training_jobs_of
from tasks.batch.rules.transform import BATCH_JOB_TAG
from tasks.shared.cost import log_worst_case
from tasks.shared.rules.cost.spent import COST_METRIC, FAILED_COST_METRIC
from tasks.training.jobs import training_job_name
from tests.fakes.environment import SPEC, World
from tests.fixtures.costs import COSTED, HOUR, PAID

NAME = SPEC.name


@pytest.fixture
def env(tmp_path: Path) -> World:
    made = World.at(tmp_path)
    made._adapters["trainer"] = FakeTrainer(
        root=tmp_path / "paid", polls_in_progress=9, fixed_compute=PAID, billable_seconds=36.0
    )
    return made


def at_work(env: World, flow_run: str, key: str = "train", trainer: Any = None) -> tuple[str, str]:
    """Open a tracked run and submit its job, like a flow run that then disappears; return the ids of both."""
    tags = {"ratchet.flow_run": flow_run}
    run = env.tracking().open_run(NAME, key=f"{flow_run}:{key}", name="price on production", tags=tags)
    program = env.scratch / "program"
    program.mkdir(parents=True, exist_ok=True)
    (program / "train.py").touch()
    log_worst_case(env.tracking(), run, COSTED)
    (trainer or env.trainer()).submit(TrainingJob(training_job_name(NAME, run.id), program, {}))
    return run.id, training_job_name(NAME, run.id)


def stopped(env: World, flow_run: str, *, given_up: bool = True, said: list[str] | None = None) -> list[str]:
    told: list[str] = [] if said is None else said
    return stop_training_jobs_of(env, NAME, flow_run, lambda: given_up, told.append)


def test_the_jobs_of_that_flow_run_alone_are_stopped(env: World) -> None:
    (_, job), (_, other), (_, theirs) = (at_work(env, "mine"), at_work(env, "mine", "trial:1"),
                                         at_work(env, "theirs"))  # fmt: skip
    assert stopped(env, "mine") == [job, other]
    assert [env.trainer().state(name).status for name in (job, other)] == [JobStatus.stopped] * 2
    assert env.trainer().state(theirs).status is JobStatus.in_progress


def test_the_tracked_runs_of_stopped_jobs_are_closed_with_their_cost(env: World) -> None:
    (run, _), (trial, _) = at_work(env, "mine"), at_work(env, "mine", "trial:1")
    stopped(env, "mine")
    tracking = env.tracking()
    assert {tracking.run(each).status for each in (run, trial)} == {"FAILED"}
    assert all(COST_METRIC in tracking.run(each).metrics for each in (run, trial))


def test_what_is_said_twice_is_paid_once(env: World) -> None:
    run, _ = at_work(env, "mine")
    stopped(env, "mine")
    once = env.tracking().run(run).metrics[FAILED_COST_METRIC]
    stopped(env, "mine")
    assert env.tracking().run(run).metrics[FAILED_COST_METRIC] == once < HOUR


def test_a_flow_run_that_a_person_has_retried_keeps_its_job(env: World) -> None:
    run, job = at_work(env, "mine")
    assert stopped(env, "mine", given_up=False) == []
    assert env.trainer().state(job).status is JobStatus.in_progress
    assert env.tracking().run(run).status == "RUNNING"


def test_the_job_of_the_trainer_for_small_work_is_stopped_too(env: World, tmp_path: Path) -> None:
    small = FakeTrainer(root=tmp_path / "small", polls_in_progress=9)
    env._adapters["small"] = small
    with_small = env.model_copy(update={"small_trainer_adapter": "small"})
    _, job = at_work(env, "mine", trainer=small)
    assert stopped(with_small, "mine") == [job]
    assert small.state(job).status is JobStatus.stopped


class Deaf(FakeTrainer):
    """A trainer whose service does not respond."""

    _block_type_slug = "ratchet-trainer-deaf"

    def stop(self, name: str) -> None:
        raise Unavailable(f"stopping job {name}: no answer")


def test_a_job_that_cannot_be_stopped_is_said_and_its_worst_case_stays(env: World, tmp_path: Path) -> None:
    run, job = at_work(env, "mine")
    env._adapters["trainer"] = Deaf(root=tmp_path / "deaf", fixed_compute=PAID)
    said: list[str] = []
    assert stopped(env, "mine", said=said) == []
    assert f"{job} could not be stopped, and may run until its own limit" in said[0]
    found = env.tracking().run(run)
    assert found.status == "FAILED" and COST_METRIC not in found.metrics


def test_the_transform_job_of_a_scoring_that_was_cancelled_is_stopped(env: World) -> None:
    transform = FakeBatchInference(polls_until_done=9)
    env._adapters["transform"] = transform
    job = BatchInferenceJob("price-score-1", env.scratch, "3", "d", 60)
    transform.submit(job, [RequestPart(b"{}", pa.table({"key": ["a"]}))])
    tags = {"ratchet.flow_run": "mine", BATCH_JOB_TAG: job.name}
    run = env.tracking().open_run(NAME, key="score", name="scoring", tags=tags)
    assert stop_batch_jobs_of(env, NAME, "mine", lambda: True, print) == []
    with_one = env.model_copy(update={"batch_inference_adapter": "transform"})
    assert stop_batch_jobs_of(with_one, NAME, "theirs", lambda: True, print) == []
    assert stop_batch_jobs_of(with_one, NAME, "mine", lambda: True, print) == [job.name]
    assert transform.state(job.name).status is JobStatus.stopped
    assert env.tracking().run(run.id).status == "FAILED"


def test_a_run_that_had_ended_is_left_as_it_is(env: World) -> None:
    run, _ = at_work(env, "mine")
    env.tracking().log(run, metrics={COST_METRIC: 1.25})
    env.tracking().close_run(run, "FINISHED")
    stopped(env, "mine")
    found = env.tracking().run(run)
    assert (found.status, found.metrics[COST_METRIC]) == ("FINISHED", 1.25)

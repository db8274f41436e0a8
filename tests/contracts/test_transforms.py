"""The transform port's contract, over every adapter, and what SageMaker's adapter guarantees beyond it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pytest

from blocks.batch_inference.base import BatchInference, BatchInferenceJob, RequestPart
from blocks.batch_inference.fake import FakeBatchInference
from blocks.common.errors import Conflict, Corrupt, JobFailed, NotFound, Rejected, Unavailable
from blocks.common.jobs import JobStatus
from blocks.records.compute import Compute
from local.sagemaker.faults import Fault
from tests.fixtures.batch_inference import PARTS, a_job, parts, quiet, sagemaker_transform
from tests.fixtures.local_aws import SageMakerLab


def refused() -> Iterator[RequestPart]:
    raise AssertionError("the rows were asked for again")
    yield


@dataclass(frozen=True)
class Bench:
    """One adapter under test, with a job that completes, one that fails, and a way to hold a job in progress."""

    transform: BatchInference
    failing: BatchInference
    job: BatchInferenceJob
    failing_job: BatchInferenceJob
    last_words: str
    held: Callable[[], BatchInference]


def fake_bench(tmp_path: Path) -> Bench:
    job = a_job(tmp_path, "price-score-1")
    failing = FakeBatchInference(failing_attempts=1, reason="told to").with_predictions(lambda row: row[0])
    return Bench(
        FakeBatchInference().with_predictions(lambda row: row[0]), failing, job, replace(job, name="price-score-bad"), "told to",
        lambda: FakeBatchInference(polls_until_done=10**9),
    )  # fmt: skip


def sagemaker_bench(tmp_path: Path, desk: SageMakerLab) -> Bench:
    unique = desk.bucket.removeprefix("tests-")  # on SageMaker a name can never be used again
    transform = sagemaker_transform(desk)

    def held() -> BatchInference:
        desk.server.faults.add(Fault("stuck", match=unique))
        return transform

    bad = a_job(tmp_path / "bad", f"price-score-bad-{unique}", status=500)
    return Bench(transform, transform, a_job(tmp_path, f"price-score-{unique}"), bad, "told to", held)


@pytest.fixture(params=["fake", pytest.param("sagemaker", marks=pytest.mark.slow)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    if request.param == "sagemaker":
        return sagemaker_bench(tmp_path, request.getfixturevalue("desk"))
    return fake_bench(tmp_path)


def answered(transform: BatchInference, name: str) -> list[tuple[list[str], list[float]]]:
    return [
        (carried["key"].to_pylist(), json.loads(body)["predictions"]) for carried, body in transform.responses(name)
    ]


def test_every_row_is_answered_beside_what_it_carried_in_order(bench: Bench) -> None:
    state = bench.transform.run(bench.job, parts(), quiet)
    assert state.status is JobStatus.completed and state.seconds >= 0
    expected = [([f"{n}-0", f"{n}-1"], [n, n + 0.5]) for n in range(PARTS)]
    assert answered(bench.transform, bench.job.name) == expected


def test_what_a_job_will_ask_for_is_known_before_it_is_submitted(bench: Bench) -> None:
    asked = bench.transform.compute(1234)
    assert asked.max_seconds == 1234 and asked.instance_count >= 1
    assert bool(asked.instance_types) == bool(asked.region)


def test_a_completed_job_is_adopted_and_its_rows_are_not_asked_for_again(bench: Bench) -> None:
    bench.transform.run(bench.job, parts(), quiet)
    assert bench.transform.run(bench.job, refused(), quiet).status is JobStatus.completed
    assert len(answered(bench.transform, bench.job.name)) == PARTS


def test_a_failure_carries_its_reason_and_is_started_anew_on_the_rows_that_are_kept(bench: Bench) -> None:
    with pytest.raises(JobFailed, match=bench.last_words):
        bench.failing.run(bench.failing_job, parts(), quiet)
    assert bench.failing.state(bench.failing_job.name).status is JobStatus.failed
    bench.failing.submit(bench.failing_job, refused())
    assert bench.failing.state(bench.failing_job.name).status is JobStatus.in_progress


def test_a_stopped_job_is_a_failure_and_is_started_anew(bench: Bench) -> None:
    transform = bench.held()
    transform.submit(bench.job, parts())
    transform.stop(bench.job.name)
    assert transform.state(bench.job.name).status is JobStatus.stopped
    transform.stop(bench.job.name)
    transform.submit(bench.job, refused())
    assert transform.state(bench.job.name).status is JobStatus.in_progress
    transform.stop(bench.job.name)


def test_what_interrupts_the_wait_stops_the_job(bench: Bench) -> None:
    def interrupt(_line: str) -> None:
        raise KeyboardInterrupt

    transform = bench.held()
    with pytest.raises(KeyboardInterrupt):
        transform.run(bench.job, parts(), interrupt)
    assert transform.state(bench.job.name).status is JobStatus.stopped


def test_a_job_above_its_time_is_stopped(bench: Bench) -> None:
    transform = bench.held()
    with pytest.raises(JobFailed, match="took longer than 0 s"):
        transform.run(replace(bench.job, max_seconds=0), parts(), quiet)
    assert transform.state(bench.job.name).status is JobStatus.stopped


def test_another_version_under_the_same_name_is_a_conflict(bench: Bench) -> None:
    bench.transform.run(bench.job, parts(), quiet)
    with pytest.raises(Conflict, match="give it another name"):
        bench.transform.submit(replace(bench.job, version="4"), parts())


def test_no_rows_and_an_unknown_name_are_refused(bench: Bench) -> None:
    with pytest.raises(Rejected, match="no rows"):
        bench.transform.submit(bench.job, parts(0))
    with pytest.raises(NotFound):
        bench.transform.state("price-score-unknown")


@pytest.fixture
def job(tmp_path: Path, desk: SageMakerLab) -> BatchInferenceJob:
    return a_job(tmp_path, f"price-score-{desk.bucket[-12:]}")


def attempts(desk: SageMakerLab, job: BatchInferenceJob) -> list[str]:
    listed = desk.sagemaker.list_transform_jobs(NameContains=job.name, SortOrder="Ascending")
    return [each["TransformJobName"] for each in listed["TransformJobSummaries"]]


def test_whoever_comes_later_attaches_and_it_is_paid_once(desk: SageMakerLab, job: BatchInferenceJob) -> None:
    sagemaker_transform(desk).submit(job, parts())
    state = sagemaker_transform(desk).run(job, refused(), quiet)
    assert state.billable_seconds == state.seconds > 0 and state.instance_type == "ml.m5.large"
    assert attempts(desk, job) == [job.name]


def test_rows_that_were_copied_in_part_are_copied_anew_and_nothing_of_them_is_answered(
    desk: SageMakerLab, job: BatchInferenceJob
) -> None:
    def killed() -> Iterator[RequestPart]:
        yield from parts(2)
        raise KeyboardInterrupt

    transform = sagemaker_transform(desk)
    with pytest.raises(KeyboardInterrupt):
        transform.submit(job, killed())
    assert attempts(desk, job) == []
    transform.run(job, parts(), quiet)
    assert len(answered(transform, job.name)) == PARTS


def test_no_capacity_is_tried_again_and_a_quota_is_not(desk: SageMakerLab, job: BatchInferenceJob) -> None:
    transform = sagemaker_transform(desk)
    desk.server.faults.add(Fault("capacity", match=job.name, times=1))
    with pytest.raises(Unavailable, match="CapacityError"):
        transform.run(job, parts(), quiet)
    desk.server.faults.add(Fault("quota", match="CreateTransformJob", times=1))
    with pytest.raises(Rejected, match="Service Quotas"):
        transform.run(job, refused(), quiet)
    assert transform.run(job, refused(), quiet).status is JobStatus.completed
    assert attempts(desk, job) == [job.name, f"{job.name}-2"]


def test_answers_that_are_gone_are_predicted_again_and_one_that_is_missing_is_named(
    desk: SageMakerLab, job: BatchInferenceJob
) -> None:
    transform = sagemaker_transform(desk)
    transform.run(job, parts(), quiet)
    key = next(each["Key"] for each in desk.s3.list_objects_v2(Bucket=desk.bucket)["Contents"]
               if each["Key"].endswith("part-00001.json.out"))  # fmt: skip
    desk.s3.delete_object(Bucket=desk.bucket, Key=key)
    with pytest.raises(Corrupt, match="lacks part-00001 of 3"):
        answered(transform, job.name)
    transform.run(job, refused(), quiet)
    assert attempts(desk, job) == [job.name, f"{job.name}-2"] and len(answered(transform, job.name)) == PARTS


def test_a_model_that_was_changed_is_refused_before_anything_is_copied(
    desk: SageMakerLab, job: BatchInferenceJob
) -> None:
    (job.model_folder / "answers.json").write_text("{}")
    with pytest.raises(Corrupt, match="fetch it again"):
        sagemaker_transform(desk).submit(job, parts())
    assert desk.s3.list_objects_v2(Bucket=desk.bucket)["KeyCount"] == 0


def test_a_part_above_what_sagemaker_takes_is_refused(desk: SageMakerLab, job: BatchInferenceJob) -> None:
    with pytest.raises(Rejected, match="SageMaker takes 6 MB a request"):
        sagemaker_transform(desk).submit(job, [RequestPart(b" " * (6 * 2**20 + 1), pa.table({"key": ["k"]}))])


def test_a_job_of_an_image_that_was_mended_is_started_anew(desk: SageMakerLab, job: BatchInferenceJob) -> None:
    with pytest.raises(JobFailed, match="Cannot find repository"):
        sagemaker_transform(desk, image="elsewhere:1").run(job, parts(), quiet)
    assert sagemaker_transform(desk).run(job, refused(), quiet).status is JobStatus.completed


def test_what_is_asked_for_is_priced_by_instance_and_count(desk: SageMakerLab) -> None:
    assert sagemaker_transform(desk, instance_count=4).compute(60) == Compute(("ml.m5.large",), "us-east-1", 4, 60)

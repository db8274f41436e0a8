"""The environment `aws`: the flows that ran on folders and processes run on S3 and SageMaker without other changes."""

from pathlib import Path
from uuid import UUID

import pandas as pd
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from blocks.batch_inference.sagemaker import SageMakerBatchInference
from blocks.environment import open_environment
from local.stack import Stack, use_running_stack
from local.supervisor import down
from tests.checkout import start_stack
from tests.fixtures.aws_story import (
    LOG_GROUP,
    cancel_run_while_training,
    end_run_while_training,
    register_aws,
    run_story,
)
from tests.fixtures.local_aws import SageMakerLab
from tests.fixtures.support import customers, kill, outcome, run
from tests.fixtures.workers import RestartableWorker
from tests.waiting import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.heavy, pytest.mark.timeout(600)]


def test_the_same_story_through_s3_a_training_job_and_a_sagemaker_endpoint(
    stack: Stack, desk: SageMakerLab, tmp_path: Path
) -> None:
    register_aws(stack, desk.server.url, desk.bucket)
    folder = stack.state_folder / "demo" / tmp_path.name  # `aws` reads no other folder
    told = run_story("cloud", "aws", folder)
    assert all(abs(sum(row) - 1) < 1e-9 for row in told.predictions)
    kept = desk.s3.list_objects_v2(Bucket=desk.bucket, Delimiter="/")["CommonPrefixes"]
    assert {each["Prefix"] for each in kept} >= {"lake/", "training/", "releases/"}
    job = desk.sagemaker.list_training_jobs(NameContains="cloud-")["TrainingJobSummaries"][0]
    tags = desk.sagemaker.list_tags(ResourceArn=job["TrainingJobArn"])["Tags"]
    assert {"ratchet:job", "ratchet:run", "ratchet:commit", "ratchet:data-digest"} <= {tag["Key"] for tag in tags}
    assert desk.sagemaker.describe_endpoint(EndpointName="cloud")["EndpointStatus"] == "InService"
    lines = "\n".join(logged(desk, f"retrain/{told.run_id}"))
    assert "train-" in lines and "worst case of this run" in lines, "tasks before the pause"
    assert "version 1 serves at" in lines, "tasks after it, of another process"
    assert "were not stored" not in lines
    desk.server.operations.capture.flush()
    (segment,) = open_environment("aws").endpoint().log_segments("cloud")
    assert [len(request["answer"]["predictions"]) for request in segment.requests] == [2]
    many_rows_are_scored_by_batch_transform(desk, folder)


def many_rows_are_scored_by_batch_transform(desk: SageMakerLab, folder: Path) -> None:
    """Predict more rows than `local_rows`, where settings make machines fast and the flow run slow."""
    block = SageMakerBatchInference.load("aws")
    slow = {"local_rows_per_second": 1.0, "startup_seconds": 0.0, "poll_seconds": 0.2}
    block.model_copy(update=slow).save("aws", overwrite=True)
    parts = [
        customers().assign(customer_id=lambda rows, n=n: rows["customer_id"].astype(str) + f"-{n}") for n in range(8)
    ]
    pd.concat(parts).drop(columns="churn").to_parquet(folder / "many.parquet", index=False)
    done = run("batch_inference/batch-inference", model="cloud", source=str(folder / "many.parquet"), environment="aws")
    assert outcome(done) == "Completed"
    (job,) = desk.sagemaker.list_transform_jobs(NameContains="cloud-batch-")["TransformJobSummaries"]
    assert job["TransformJobStatus"] == "Completed"
    env = open_environment("aws")
    assert env.lake().as_of("cloud-predictions").rows == 8 * 7043
    (scoring,) = [each for each in env.tracking().runs("cloud") if "ratchet.batch_inference_job" in each.tags]
    assert scoring.status == "FINISHED" and scoring.metrics["cost_usd"] > 0
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[done.id])))
    shown = next(each for each in artifacts if each.key == "batch-placement")
    assert "Batch inference of cloud: by batch transform" in str(shown.data) and "56,344 rows take 939 min" in str(
        shown.data
    )


def logged(desk: SageMakerLab, stream: str) -> list[str]:
    found = desk.logs.get_log_events(logGroupName=LOG_GROUP, logStreamName=stream, startFromHead=True)
    return [event["message"] for event in found["events"]]


def test_a_run_that_is_cancelled_or_killed_while_it_trains_leaves_no_job_that_is_paid_for(
    stack: Stack, team_checkout: Path, desk: SageMakerLab, tmp_path: Path
) -> None:
    register_aws(stack, desk.server.url, desk.bucket)
    rows = stack.state_folder / "demo" / tmp_path.name / "rows.csv"
    rows.parent.mkdir(parents=True)
    customers()[:2000].to_csv(rows, index=False)
    run("ingest/ingest", model="halted", source=str(rows), environment="aws")
    assert cancel_run_while_training("halted", "aws", desk) == "Stopped"
    desk.server.faults.clear()
    assert end_run_while_training("halted", "aws", desk, kill) == "Stopped"
    desk.server.faults.clear()
    workers = RestartableWorker(
        use_running_stack(stack.state_folder), team_checkout
    )  # as it is now: other tests start it again

    def kill_both(run_id: UUID) -> None:
        kill(run_id)
        workers.replace()

    try:  # no process waits for the job any more: the worker that detects the lost run stops it
        assert end_run_while_training("halted", "aws", desk, kill_both) == "Stopped"
    finally:
        workers.stop()
        down(stack.state_folder)
        start_stack(team_checkout, stack.state_folder)
        use_running_stack(stack.state_folder)
    tracking = open_environment("aws").tracking()
    wait_for(lambda: [each.status for each in tracking.runs("halted")] == ["FAILED"] * 3, what="all are closed")
    tracked = tracking.runs("halted")
    assert all("cost_usd" in each.metrics for each in tracked)

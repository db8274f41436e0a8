"""Training jobs: the operations, and the life cycle of a job."""

import shutil
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local.sagemaker import opt_ml
from local.sagemaker.aws import AwsClients
from local.sagemaker.containers import GRACE_SECONDS, Container, ContainerRuntime, timestamp_ms
from local.sagemaker.errors import NotImplementedLocally, ResourceFailure, validation_error
from local.sagemaker.faults import FaultInjector
from local.sagemaker.opt_ml import parse_metrics
from local.sagemaker.records import Record, RecordStore

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
POLL_SECONDS = 0.05
SPOT_DISCOUNT = 0.7
"""The discount of a spot instance, which is constant here."""
NO_CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance type."
)


class JobControl:
    """Stop and interrupt requests for the thread of one job."""

    def __init__(self) -> None:
        self.stop_requested = threading.Event()
        self.reason = ""
        self.interrupted = False

    def request_stop(self, reason: str) -> None:
        """Request the job's end, with the reason "Stopped", "MaxRuntimeExceeded" or "MaxWaitTimeExceeded"."""
        self.reason = self.reason or reason
        self.stop_requested.set()


class TrainingJobs:
    """All training jobs of this server."""

    def __init__(
        self, store: RecordStore, containers: ContainerRuntime, aws: AwsClients, faults: FaultInjector
    ) -> None:
        self.store, self._containers, self._aws, self._faults = store, containers, aws, faults
        self._attempts: dict[str, JobControl] = {}

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Start a job. Raises ApiError; its code is ResourceInUse when the name is taken."""
        _check(request)
        job = self.store.add(request, TrainingJobStatus="InProgress", SecondaryStatus="Starting")
        self._attempts[job.name] = JobControl()
        _enter_status(job, "Starting", "Starting the training job")
        threading.Thread(target=self._run, args=(job,), daemon=True, name=job.name).start()
        return {"TrainingJobArn": job["TrainingJobArn"]}

    def stop(self, name: str) -> None:
        """Request the end of a job. Raises ApiError when it has ended."""
        job = self.store.get(name)
        with job.lock:
            if job["TrainingJobStatus"] != "InProgress":
                raise validation_error(
                    "The request was rejected because the training job is in status "
                    f"{job['TrainingJobStatus']}; it is not in a stoppable state."
                )
            job.update(TrainingJobStatus="Stopping")
            _enter_status(job, "Stopping", "Stopping the training job")
        self._attempts[name].request_stop("Stopped")

    def update_warm_pool(self, name: str, keep_alive: int) -> dict[str, Any]:
        """Change how long a finished job's instance is kept (UpdateTrainingJob)."""
        job = self.store.get(name)
        job.update(ResourceConfig={**job["ResourceConfig"], "KeepAlivePeriodInSeconds": keep_alive})
        if job.get("WarmPoolStatus") and not keep_alive:
            job.update(WarmPoolStatus={**job["WarmPoolStatus"], "Status": "Terminated"})
        return {"TrainingJobArn": job["TrainingJobArn"]}

    def interrupt_spot(self, name: str) -> None:
        """Interrupt a spot job: its instance is reclaimed."""
        if not self.store.get(name).get("EnableManagedSpotTraining"):
            raise validation_error(f"the training job {name} does not run on a spot instance")
        self._attempts[name].interrupted = True

    def _run(self, job: Record) -> None:
        attempt = self._attempts[job.name]
        try:
            self._provision(job, attempt)
            self._work(job, attempt)
        except ResourceFailure as failure:
            _end_job(job, "Failed", "Failed", str(failure))
        except Exception as mistake:  # a bug here must not leave the job running
            _end_job(job, "Failed", "Failed", f"InternalServerError: {type(mistake).__name__}: {mistake}")

    def _provision(self, job: Record, attempt: JobControl) -> None:
        while self._faults.fires("stuck", job.name) and not attempt.stop_requested.wait(POLL_SECONDS):
            pass
        config = job["ResourceConfig"]
        options = config.get("InstancePreferences") or [config]
        available = [
            each for each in options if not self._faults.fires("capacity", f"{each['InstanceType']} {job.name}")
        ]
        if not available:
            raise ResourceFailure(NO_CAPACITY)
        if "InstancePreferences" in config:
            count = available[0].get("InstanceCount", 1)
            chosen = {"SelectedInstanceType": available[0]["InstanceType"], "SelectedInstanceCount": count}
            job.update(ResourceConfig={**config, **chosen})

    def _work(self, job: Record, attempt: JobControl) -> None:
        lines: list[str] = []
        deadlines = _deadlines(job)
        job.update(TrainingStartTime=datetime.now(UTC))
        while True:
            folder = self._containers.new_folder(job.name)
            try:
                _enter_status(job, "Downloading", "Downloading input data")
                opt_ml.prepare_folder(folder, job.content, self._aws)
                container = None if attempt.stop_requested.is_set() else self._train(job, attempt, folder, deadlines)
                lines += container.lines if container else []
                if _spot_interrupted(job, attempt, container):
                    opt_ml.save_checkpoints(folder, job.content, self._aws)
                    attempt.interrupted = False
                    _enter_status(job, "Interrupted", "Instances were interrupted: the spot capacity was reclaimed")
                    continue
                self._finish(job, attempt, folder, container, lines)
                return
            finally:
                shutil.rmtree(folder.parent, ignore_errors=True)

    def _train(self, job: Record, attempt: JobControl, folder: Path, deadlines: Mapping[str, float]) -> Container:
        """Run the container until it ends, is interrupted, must stop or has reached a time limit."""
        algorithm = job["AlgorithmSpecification"]
        _enter_status(job, "Training", "Training image download completed. Training in progress.")
        entry = [*algorithm.get("ContainerEntrypoint", ()), *algorithm.get("ContainerArguments", ())]
        variables = {"TRAINING_JOB_NAME": job.name, "TRAINING_JOB_ARN": job["TrainingJobArn"]}
        log = (LOG_GROUP, f"{job.name}/algo-1-{timestamp_ms()}")
        container = self._containers.start(
            algorithm["TrainingImage"], "train", folder, job.get("Environment", {}) | variables, log, entry
        )
        while container.alive and not attempt.stop_requested.is_set() and not attempt.interrupted:
            attempt.stop_requested.wait(POLL_SECONDS)
            if job.get("EnableManagedSpotTraining") and self._faults.fires("interrupt", job.name):
                attempt.interrupted = True
            for reason, deadline in deadlines.items():
                if time.monotonic() > deadline:
                    attempt.request_stop(reason)
        grace = GRACE_SECONDS / self._containers.settings.speed
        self._containers.stop_container(container, grace if container.alive else 0.0)
        return container

    def _finish(
        self, job: Record, attempt: JobControl, folder: Path, container: Container | None, lines: list[str]
    ) -> None:
        """Upload the outputs, also of a stopped or failed job, and set the final status."""
        values = parse_metrics(lines, job["AlgorithmSpecification"].get("MetricDefinitions", ()))
        self._aws.add_metrics("/aws/sagemaker/TrainingJobs", values, {"TrainingJobName": job.name})
        now = datetime.now(UTC)
        final = [{"MetricName": name, "Value": value, "Timestamp": now} for name, value in values.items()]
        job.update(FinalMetricDataList=final)
        _enter_status(job, "Uploading", "Uploading generated training model")
        opt_ml.save_checkpoints(folder, job.content, self._aws)
        failed = container is not None and container.process.returncode != 0 and not attempt.reason
        artifacts = opt_ml.save_outputs(folder, job.content, self._aws, model=not failed)
        job.update(ModelArtifacts={"S3ModelArtifacts": artifacts} if artifacts else None)
        if failed and container is not None:
            reason = opt_ml.failure_reason(folder)
            raise ResourceFailure(f"AlgorithmError: {reason}, exit code: {_exit_code(container)}")
        if attempt.reason:
            _end_job(job, "Stopped", attempt.reason, "")
        else:
            _end_job(job, "Completed", "Completed", "")


def _deadlines(job: Record) -> dict[str, float]:
    """Return the deadlines of the job (`time.monotonic`), by the secondary status of a job that exceeds them."""
    limits, now = job["StoppingCondition"], time.monotonic()
    deadlines = {"MaxRuntimeExceeded": now + limits.get("MaxRuntimeInSeconds", 86_400)}
    if "MaxWaitTimeInSeconds" in limits:
        deadlines["MaxWaitTimeExceeded"] = now + limits["MaxWaitTimeInSeconds"]
    return deadlines


def _exit_code(container: Container) -> int:
    """Return the exit code as a shell does: 128 plus the signal number when a signal ended the process."""
    code = container.process.returncode
    return 128 - code if code < 0 else code


def _spot_interrupted(job: Record, attempt: JobControl, container: Container | None) -> bool:
    return bool(container and attempt.interrupted and not attempt.reason and job.get("EnableManagedSpotTraining"))


def _check(request: Mapping[str, Any]) -> None:
    """Refuse requests that AWS refuses, and features that are not implemented here."""
    config, spot = request.get("ResourceConfig", {}), request.get("EnableManagedSpotTraining", False)
    algorithm, stopping = request["AlgorithmSpecification"], request.get("StoppingCondition", {})
    preferred = config.get("InstancePreferences", [])
    if preferred and (config.get("InstanceType") or spot):
        raise validation_error(
            "InstancePreferences is mutually exclusive with InstanceType and EnableManagedSpotTraining."
        )
    if not preferred and not config.get("InstanceType"):
        raise validation_error("ResourceConfig must specify InstanceType or InstancePreferences.")
    if spot and stopping.get("MaxWaitTimeInSeconds", -1) < stopping.get("MaxRuntimeInSeconds", 86_400):
        raise validation_error("MaxWaitTimeInSeconds must be present and equal to or greater than MaxRuntimeInSeconds "
                      "when EnableManagedSpotTraining is true.")  # fmt: skip
    if not spot and "MaxWaitTimeInSeconds" in stopping:
        raise validation_error("MaxWaitTimeInSeconds can only be specified when EnableManagedSpotTraining is true.")
    if not algorithm.get("TrainingImage"):
        raise NotImplementedLocally("CreateTrainingJob without AlgorithmSpecification.TrainingImage")
    counts = [each.get("InstanceCount", 1) for each in preferred or [config]]
    if max(counts) > 1 or config.get("InstanceGroups"):
        raise NotImplementedLocally("training on several instances")
    opt_ml.check_channels(request)


def _enter_status(job: Record, status: str, message: str) -> None:
    now, transitions = datetime.now(UTC), list(job.get("SecondaryStatusTransitions", ()))
    if transitions:
        transitions[-1] = {**transitions[-1], "EndTime": now}
    entered = {"Status": status, "StartTime": now, "StatusMessage": message}
    job.update(SecondaryStatus=status, SecondaryStatusTransitions=[*transitions, entered])


def _end_job(job: Record, status: str, secondary: str, reason: str) -> None:
    _enter_status(job, secondary, reason or f"Training job {status.lower()}")
    now, failure = datetime.now(UTC), reason[:1024] or None
    job.update(TrainingJobStatus=status, TrainingEndTime=now, FailureReason=failure, **_billing_members(job, now))


def _billing_members(job: Record, now: datetime) -> dict[str, Any]:
    """Return the billed time of the job, from the start of its instance, in whole seconds."""
    start = job.get("TrainingStartTime")
    if start is None:
        return {}
    seconds, keep = int((now - start).total_seconds()) + 1, job["ResourceConfig"].get("KeepAlivePeriodInSeconds")
    billed = max(1, round(seconds * (1 - SPOT_DISCOUNT))) if job.get("EnableManagedSpotTraining") else seconds
    pool = {"Status": "Available", "ResourceRetainedBillableTimeInSeconds": 0} if keep else None
    return {"TrainingTimeInSeconds": seconds, "BillableTimeInSeconds": billed, "WarmPoolStatus": pool}

"""Batch transform jobs: a model is started for one job, scores every object under a prefix, and is stopped."""

import shutil
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from local.sagemaker.aws import AwsClients, split_s3_uri
from local.sagemaker.containers import ContainerRuntime, timestamp_ms
from local.sagemaker.errors import NotImplementedLocally, ResourceFailure, validation_error
from local.sagemaker.faults import FaultInjector
from local.sagemaker.fleet import STARTUP_SECONDS, FleetManager, ModelContainer
from local.sagemaker.records import Record, RecordStore

MAX_PAYLOAD_MB = 6
INVOCATION_TIMEOUT_SECONDS = 600.0


class TransformJobs:
    """All batch transform jobs of this server."""

    def __init__(
        self,
        store: RecordStore,
        models: RecordStore,
        fleets: FleetManager,
        containers: ContainerRuntime,
        aws: AwsClients,
        faults: FaultInjector,
    ) -> None:
        self.store, self._models, self._fleets = store, models, fleets
        self._containers, self._aws, self._faults = containers, aws, faults
        self._stop_events: dict[str, threading.Event] = {}

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Start a job."""
        self._models.get(request["ModelName"])
        inputs = request["TransformInput"]
        if inputs.get("SplitType", "None") not in ("None", "Line") or inputs.get("CompressionType", "None") != "None":
            raise NotImplementedLocally("another SplitType than None and Line, or a CompressionType")
        if inputs["DataSource"]["S3DataSource"]["S3DataType"] != "S3Prefix":
            raise NotImplementedLocally("another data source than an S3Prefix")
        if request["TransformOutput"].get("AssembleWith", "None") == "Line" and inputs.get("SplitType") != "Line":
            raise validation_error("AssembleWith Line needs SplitType Line")
        job = self.store.add(request, TransformJobStatus="InProgress")
        self._stop_events[job.name] = threading.Event()
        threading.Thread(target=self._run, args=(job,), daemon=True, name=job.name).start()
        return {"TransformJobArn": job["TransformJobArn"]}

    def stop(self, name: str) -> None:
        """Request the end of a job."""
        job = self.store.get(name)
        with job.lock:
            if job["TransformJobStatus"] != "InProgress":
                raise validation_error(
                    f"The transform job is in status {job['TransformJobStatus']}; it cannot be stopped."
                )
            job.update(TransformJobStatus="Stopping")
        self._stop_events[name].set()

    def _run(self, job: Record) -> None:
        stop_requested, status, reason = self._stop_events[job.name], "Completed", None
        try:
            while self._faults.fires("stuck", job.name) and not stop_requested.wait(0.05):
                pass
            if self._faults.fires("capacity", f"{job['TransformResources']['InstanceType']} {job.name}"):
                raise ResourceFailure("CapacityError: Unable to provision requested ML compute capacity.")
            self._work(job, stop_requested)
        except ResourceFailure as failure:
            status, reason = "Failed", str(failure)[:1024]
        except Exception as mistake:  # a bug here must not leave the job running
            status, reason = "Failed", f"InternalServerError: {type(mistake).__name__}: {mistake}"
        if stop_requested.is_set():
            status, reason = "Stopped", None
        job.update(TransformJobStatus=status, FailureReason=reason, TransformEndTime=datetime.now(UTC))

    def _work(self, job: Record, stop_requested: threading.Event) -> None:
        log = ("/aws/sagemaker/TransformJobs", f"{job.name}/i-{timestamp_ms():x}")
        job.update(TransformStartTime=datetime.now(UTC))
        variables = job.get("Environment", {})
        served = self._fleets.start_model(job["ModelName"], variables, log, STARTUP_SECONDS, stop_requested)
        folder = self._containers.new_folder(job.name)
        try:
            prefix = job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
            if not self._aws.download(prefix, folder):
                raise ResourceFailure(f'ClientError: No S3 objects found under S3 URL "{prefix}"')
            for path in sorted(found for found in folder.rglob("*") if found.is_file()):
                if not stop_requested.is_set():
                    self._score(job, served, path, path.relative_to(folder).as_posix())
        finally:
            self._fleets.stop_model(served)
            shutil.rmtree(folder.parent, ignore_errors=True)

    def _score(self, job: Record, served: ModelContainer, path: Path, name: str) -> None:
        """Score one object in parts, and write the joined responses to `<name>.out`."""
        inputs, output = job["TransformInput"], job["TransformOutput"]
        headers = {"Content-Type": inputs.get("ContentType", ""), "Accept": output.get("Accept", "*/*")}
        limit = job.get("MaxPayloadInMB", MAX_PAYLOAD_MB) * 2**20
        answers = []
        for part in split_payload(path.read_bytes(), inputs.get("SplitType", "None"), job.get("BatchStrategy"), limit):
            if len(part) > limit:
                raise ResourceFailure(f"ClientError: {name}: a payload of {len(part)} bytes exceeds MaxPayloadInMB")
            try:
                response = served.invoke(part, headers, INVOCATION_TIMEOUT_SECONDS)
            except httpx.TransportError as cause:
                raise ResourceFailure(
                    f"InternalServerError: the model does not respond: {type(cause).__name__}"
                ) from cause
            if response.status_code != 200:
                raise ResourceFailure(f"ClientError: {name}: status {response.status_code}: {response.text[:300]}")
            answers.append(response.content)
        bucket, key = split_s3_uri(f"{output['S3OutputPath'].rstrip('/')}/{name}.out")
        between = b"\n" if output.get("AssembleWith") == "Line" else b""
        self._aws.s3.put_object(Bucket=bucket, Key=key, Body=between.join(answers))


def split_payload(data: bytes, split_type: str, strategy: str | None, limit: int) -> Iterator[bytes]:
    """Yield the request bodies for one object: the whole object, each line, or as many lines as the limit allows."""
    if split_type != "Line":
        yield data
        return
    part = b""
    for line in data.splitlines(keepends=True):
        if part and (strategy == "SingleRecord" or len(part) + len(line) > limit):
            yield part
            part = b""
        part += line
    if part:
        yield part

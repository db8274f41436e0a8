"""Collectable artifacts of SageMaker training jobs in S3: outputs, and shared inputs."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from blocks.common.aws.s3_collectable import S3Artifacts
from blocks.common.errors import Rejected
from blocks.records.collectable import Collectable

RUNNING_REASON = "it is running"


class TrainingArtifacts:
    """Owner of the outputs (`training-output:<attempt>`) and inputs (`training-input:<digest>`) of jobs.

    The downloaded copy of an output's model belongs to the output.
    """

    def __init__(
        self, outputs: S3Artifacts, inputs: S3Artifacts, sagemaker: Any, models_url: str, inputs_url: str, cache: Path
    ) -> None:
        self._outputs, self._inputs, self._sagemaker = outputs, inputs, sagemaker
        self._models_url, self._inputs_url, self._cache = models_url, inputs_url, cache

    def collectables(self) -> tuple[Collectable, ...]:
        """Return outputs and inputs; the output of a running job has a keep reason and depends on its inputs.

        All others can be recreated: models are in the registry, rows are in the lake.
        """
        running = {str(job["TrainingJobName"]): job for job in self._running()}
        needs = {name: self._needs(job) for name, job in running.items()}
        outputs = self._outputs.collectables(keep_reasons=dict.fromkeys(running, RUNNING_REASON), dependencies=needs)
        existing = {output.key for output in outputs}
        empty = [Collectable(f"training-output:{name}", f"job {name}", job["CreationTime"], needs[name], RUNNING_REASON)
                 for name, job in running.items() if f"training-output:{name}" not in existing]  # fmt: skip
        return (*outputs, *empty, *self._inputs.collectables())

    def size_bytes(self, key: str) -> int:
        """Return the bytes in S3."""
        return self._of(key).size_bytes(key)

    def delete_collectables(self, key: str) -> None:
        """Delete an output and the downloaded copy of its model, or an input."""
        artifacts = self._of(key)
        artifacts.delete_collectables(key)
        if artifacts is self._outputs:
            shutil.rmtree(self._cache / key.partition(":")[2], ignore_errors=True)

    def _of(self, key: str) -> S3Artifacts:
        kinds = {"training-output": self._outputs, "training-input": self._inputs}
        if (kind := key.partition(":")[0]) not in kinds:
            raise Rejected(f"{key!r} is not a training output or input; it was not deleted")
        return kinds[kind]

    def _running(self) -> Iterator[Mapping[str, Any]]:
        """Yield the jobs in progress that write their output to this prefix."""
        for status in ("InProgress", "Stopping"):
            pages = self._sagemaker.get_paginator("list_training_jobs").paginate(StatusEquals=status)
            for name in [str(job["TrainingJobName"]) for page in pages for job in page["TrainingJobSummaries"]]:
                job = self._sagemaker.describe_training_job(TrainingJobName=name)
                if job["OutputDataConfig"]["S3OutputPath"] == self._models_url:
                    yield job

    def _needs(self, job: Mapping[str, Any]) -> tuple[str, ...]:
        urls = [channel["DataSource"]["S3DataSource"]["S3Uri"] for channel in job.get("InputDataConfig", ())]
        own = (url.removeprefix(self._inputs_url).strip("/") for url in urls if url.startswith(self._inputs_url))
        return tuple(f"training-input:{digest}" for digest in own)

"""What SageMaker jobs leave in S3: their outputs, and the inputs that they share."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from blocks.common.aws.s3_collectable import S3Artifacts
from blocks.common.collectable import Collectable
from blocks.common.errors import Rejected

RUNNING_REASON = "it is running"


class TrainingArtifacts:
    """Outputs (`job:<attempt>`, with the model that was fetched of it) and inputs (`input:<digest>`) of jobs."""

    def __init__(
        self, outputs: S3Artifacts, inputs: S3Artifacts, sagemaker: Any, models_url: str, inputs_url: str, cache: Path
    ) -> None:
        self._outputs, self._inputs, self._sagemaker = outputs, inputs, sagemaker
        self._models, self._given, self._cache = models_url, inputs_url, cache

    def collectables(self) -> tuple[Collectable, ...]:
        """Return outputs and inputs; a job that runs holds its output and needs its inputs.

        What is not needed by a job that runs can be made again: a model is in the registry, rows are in the lake.
        """
        running = {str(job["TrainingJobName"]): job for job in self._running()}
        needs = {name: self._needs(job) for name, job in running.items()}
        outputs = self._outputs.collectables(keep_reasons=dict.fromkeys(running, RUNNING_REASON), dependencies=needs)
        there = {thing.key for thing in outputs}
        begun = [Collectable(f"job:{name}", f"job {name}", job["CreationTime"], needs[name], RUNNING_REASON)
                 for name, job in running.items() if f"job:{name}" not in there]  # fmt: skip
        return (*outputs, *begun, *self._inputs.collectables())

    def size(self, key: str) -> int:
        """Return the bytes in S3."""
        return self._of(key).size_bytes(key)

    def delete_collectables(self, key: str) -> None:
        """Remove an output and the model that was fetched of it, or an input."""
        of = self._of(key)
        of.delete_collectables(key)
        if of is self._outputs:
            shutil.rmtree(self._cache / key.partition(":")[2], ignore_errors=True)

    def _of(self, key: str) -> S3Artifacts:
        kinds = {"job": self._outputs, "input": self._inputs}
        if (kind := key.partition(":")[0]) not in kinds:
            raise Rejected(f"{key!r} is no job or input; it was not removed")
        return kinds[kind]

    def _running(self) -> Iterator[Mapping[str, Any]]:
        """Yield the jobs in progress that leave their output here."""
        for status in ("InProgress", "Stopping"):
            pages = self._sagemaker.get_paginator("list_training_jobs").paginate(StatusEquals=status)
            for name in [str(job["TrainingJobName"]) for page in pages for job in page["TrainingJobSummaries"]]:
                job = self._sagemaker.describe_training_job(TrainingJobName=name)
                if job["OutputDataConfig"]["S3OutputPath"] == self._models:
                    yield job

    def _needs(self, job: Mapping[str, Any]) -> tuple[str, ...]:
        given = [channel["DataSource"]["S3DataSource"]["S3Uri"] for channel in job.get("InputDataConfig", ())]
        own = (uri.removeprefix(self._given).strip("/") for uri in given if uri.startswith(self._given))
        return tuple(f"input:{digest}" for digest in own)

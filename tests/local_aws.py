"""A local SageMaker for the tests: tiny images that start in milliseconds, and buckets of one's own."""

import json
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from blocks.endpoints.base import Golden, Release
from blocks.endpoints.sagemaker import SageMakerEndpoint
from blocks.trainers.sagemaker import SageMakerTrainer
from local.sagemaker.server import LocalSageMaker, running
from local.sagemaker.settings import OURS, ROLE, Image, Settings
from runtime.digests import folder_digest
from tests.clocks import Clock
from tests.signing_keys import MODELS, signed
from tests.waiting import wait_for

SERVE = Path(__file__).parent / "data" / "tiny_serve.py"
TINY = Image(
    r"tiny",
    train=(sys.executable, "-c", "import os; exec(os.environ['PROGRAM'])"),
    serve=(sys.executable, "-I", "-S", str(SERVE)),
)
KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
SPEED = 60.0
"""A bake of a minute takes a second."""


@contextmanager
def local_aws(folder: Path, more: tuple[Image, ...] = (), **settings: Any) -> Iterator[LocalSageMaker]:
    """Run a local SageMaker, with boto3's environment pointing nowhere else."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with running(Settings(folder, images=(*more, TINY, OURS), speed=SPEED, **settings)) as server:
            yield server


class Desk:
    """A client's side: boto3 clients without retries, a bucket, and short words for long requests."""

    def __init__(self, server: LocalSageMaker) -> None:
        made = clients(server.url)
        self.server, self.sagemaker, self.runtime = server, made["sagemaker"], made["sagemaker-runtime"]
        self.s3, self.logs, self.cloudwatch = made["s3"], made["logs"], made["cloudwatch"]
        self.sns, self.sqs = made["sns"], made["sqs"]
        self.bucket = f"tests-{uuid.uuid4().hex[:12]}"
        self.s3.create_bucket(Bucket=self.bucket)

    def put(self, key: str, body: bytes | str) -> str:
        """Put an object and return its address."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return f"s3://{self.bucket}/{key}"

    def get(self, uri: str) -> bytes:
        """Return an object's bytes."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return bytes(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    def train(self, name: str, program: str, **more: Any) -> dict[str, Any]:
        """Start a training job that runs a few lines of Python."""
        algorithm = {"TrainingImage": "tiny", "TrainingInputMode": "File"}
        variables = {"PROGRAM": program, **more.pop("Environment", {})}
        request = {
            "TrainingJobName": name,
            "RoleArn": ROLE,
            "AlgorithmSpecification": algorithm | more.pop("algorithm", {}),
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/models"},
            "ResourceConfig": {"InstanceType": "ml.m6i.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
            "Environment": variables,
        }
        return dict(self.sagemaker.create_training_job(**request | more))

    def trained(self, name: str, seconds: float = 120) -> dict[str, Any]:
        """Wait until a training job has ended, and return its description."""
        return self.until(lambda: self.sagemaker.describe_training_job(TrainingJobName=name),
                          lambda job: job["TrainingJobStatus"] not in ("InProgress", "Stopping"), seconds)  # fmt: skip

    def log_of(self, name: str) -> list[str]:
        """Return the lines of a training job's log."""
        group, lines = "/aws/sagemaker/TrainingJobs", []
        if not self.logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
            return []
        streams = self.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
        for stream in streams:
            found = self.logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])
            lines += [event["message"] for event in found["events"]]
        return lines

    def model(self, name: str, answers: Mapping[str, Any], image: str = "tiny", **container: Any) -> str:
        """Make a model that answers as told."""
        uri = self.put(f"{name}/answers.json", json.dumps({"requests": {"*": [name]}, **answers}))
        source = {"S3Uri": uri.rpartition("/")[0] + "/", "S3DataType": "S3Prefix", "CompressionType": "None"}
        primary = {"Image": image, "ModelDataSource": {"S3DataSource": source}, **container}
        self.sagemaker.create_model(ModelName=name, PrimaryContainer=primary, ExecutionRoleArn=ROLE)
        return name

    def config(self, name: str, *models: str, weights: tuple[float, ...] = (), **more: Any) -> str:
        """Make an endpoint configuration: one variant a model, the first of them `AllTraffic`."""
        variants = [variant(model, "AllTraffic" if not place else model, weights[place] if weights else 1.0)
                    for place, model in enumerate(models)]  # fmt: skip
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants, **more)
        return name

    def endpoint(self, name: str, config: str) -> dict[str, Any]:
        """Make an endpoint and wait until it is in service, or has failed."""
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
        return self.settled(name)

    def settled(self, name: str, seconds: float = 120) -> dict[str, Any]:
        """Wait until an endpoint is neither being made nor changed, and return its description."""
        return self.until(lambda: self.sagemaker.describe_endpoint(EndpointName=name),
                          lambda found: found["EndpointStatus"] not in ("Creating", "Updating"), seconds)  # fmt: skip

    def ask(self, endpoint: str, **more: Any) -> Any:
        """Put a request to an endpoint and return its predictions."""
        answer = self.runtime.invoke_endpoint(EndpointName=endpoint, Body=b"anything", **more)
        return json.loads(answer["Body"].read())["predictions"]

    def share(self, endpoint: str, count: int = 40) -> Counter[str]:
        """Ask an endpoint again and again, and return how often each model answered."""
        return Counter(self.ask(endpoint)[0] for _ in range(count))

    def until(self, look: Callable[[], Any], done: Callable[[Any], bool], seconds: float = 120) -> Any:
        """Look again and again until it is done, and return what was seen then."""
        seen: list[Any] = []

        def is_done() -> bool:
            seen[:] = [look()]
            return done(seen[0])

        wait_for(is_done, seconds, "what was asked of the local SageMaker")
        return seen[0]

    def watched_by(self, clock: Clock, patch: pytest.MonkeyPatch) -> Clock:
        """Have endpoint updates that begin in this test be watched as long as the clock says."""
        patch.setattr(self.server.operations.endpoints, "clock", clock)
        return clock


def sagemaker_endpoint(desk: Desk, **fields: Any) -> SageMakerEndpoint:
    """Return an endpoint on the local SageMaker, with the tiny container."""
    where = {"bucket": desk.bucket, "endpoint_url": desk.server.url, "region": "us-east-1"}
    given = {"role_arn": ROLE, "image": "tiny", "poll_seconds": 0.05, "serve_command": list(TINY.serve),
             "trusted_keys": [MODELS.public]}  # fmt: skip
    return SageMakerEndpoint(**where | given | fields)


def tiny_release(folder: Path, version: str, endpoint: str = "churn", **told: Any) -> Release:
    """Return a release that the tiny container serves: its answer is its version."""
    model, request, predictions = folder / f"model-{version}", '{"rows": 1}', [[float(version), 0.5]]
    model.mkdir(exist_ok=True)
    answers = {"requests": {request: predictions, **told.pop("more", {})}, "version": version, **told}
    (model / "answers.json").write_text(json.dumps(answers))
    signed(model)
    return Release(endpoint, version, model, folder_digest(model), Golden(request, json.dumps(predictions)))


@cache
def clients(url: str) -> dict[str, Any]:
    """Return boto3 clients that leave it to the server to judge a request, and do not try again."""
    config = Config(retries={"total_max_attempts": 1}, max_pool_connections=32, parameter_validation=False)
    names = ("sagemaker", "sagemaker-runtime", "s3", "logs", "cloudwatch", "sns", "sqs")
    return {name: boto3.client(name, endpoint_url=url, config=config, **KEYS) for name in names}


def sagemaker_trainer(desk: Desk, folder: Path, *, patient: bool = True, **fields: Any) -> SageMakerTrainer:
    """Return a trainer on the local SageMaker, with the project's own container; `patient`: boto3 tries again."""
    given = {"role_arn": ROLE, "image": "ratchet:test", "poll_seconds": 0.1, "cache": folder / "cache"}
    where = {"bucket": desk.bucket, "endpoint_url": desk.server.url, "region": "us-east-1"}
    trainer = SageMakerTrainer(**given | where | fields)
    trainer._clients.update({} if patient else clients(desk.server.url))
    return trainer


def variant(model: str, name: str = "AllTraffic", weight: float = 1.0) -> dict[str, Any]:
    """Return a production variant of one instance."""
    return {"VariantName": name, "ModelName": model, "InitialInstanceCount": 1, "InstanceType": "ml.m6i.large",
            "InitialVariantWeight": weight, "ContainerStartupHealthCheckTimeoutInSeconds": 60}  # fmt: skip

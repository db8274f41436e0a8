"""The operations by name, each with the handler of its validated request."""

from collections.abc import Callable, Mapping
from typing import Any

from local.sagemaker import endpoints as rules
from local.sagemaker.alarms import Alarms
from local.sagemaker.aws import AwsClients
from local.sagemaker.capture import DataCapture, capture_summary, check_capture_config
from local.sagemaker.containers import ContainerRuntime
from local.sagemaker.endpoints import Endpoints
from local.sagemaker.faults import FaultInjector
from local.sagemaker.fleet import FleetManager
from local.sagemaker.invocations import InvocationHandler
from local.sagemaker.records import RecordStore, find_by_arn
from local.sagemaker.settings import ACCOUNT, Settings
from local.sagemaker.training import TrainingJobs
from local.sagemaker.transform import TransformJobs

Request = Mapping[str, Any]
Handler = Callable[[Request], dict[str, Any] | None]


class Operations:
    """The jobs, models and endpoints of one account and region, and the handler of each operation."""

    def __init__(self, settings: Settings, aws: AwsClients) -> None:
        self.settings, self.faults, self.aws = settings, FaultInjector(), aws
        self.containers, self.alarms = ContainerRuntime(settings, aws), Alarms(aws, settings.speed)
        self.models, self.configs = (
            self._record_store("Model", "model"),
            self._record_store("EndpointConfig", "endpoint-config"),
        )
        jobs = self._record_store("TrainingJob", "training-job", "ResourceInUse")
        transforms = self._record_store("TransformJob", "transform-job", "ResourceInUse")
        fleets = FleetManager(self.models, self.configs, self.containers, aws)
        self.training = TrainingJobs(jobs, self.containers, aws, self.faults)
        self.endpoints = Endpoints(
            self._record_store("Endpoint", "endpoint"), self.configs, fleets, self.alarms, self.faults, settings.speed
        )
        self.transform = TransformJobs(transforms, self.models, fleets, self.containers, aws, self.faults)
        self.capture = DataCapture(self.configs, aws, settings.speed)
        self.invoking = InvocationHandler(self.endpoints, aws, self.capture)
        self.stores = (jobs, transforms, self.models, self.configs, self.endpoints.records)
        self.handlers: dict[str, Handler] = {**self._of_jobs(), **self._of_hosting(), **self._of_tags()}

    def _record_store(self, kind: str, slug: str, taken: str = "ValidationException") -> RecordStore:
        start = f"arn:aws:sagemaker:{self.settings.region}:{ACCOUNT}:{slug}/"
        return RecordStore(kind, lambda name: start + name.lower(), taken)

    def _described(self, store: RecordStore) -> Handler:
        def describe(request: Request) -> dict[str, Any]:
            record = store.get(request[f"{store.kind}Name"])
            return record.as_of(self.faults.describe_lag(record.name))

        return describe

    def _of_jobs(self) -> dict[str, Handler]:
        training, transform = self.training, self.transform
        return {
            "CreateTrainingJob": training.create,
            "DescribeTrainingJob": self._described(training.store),
            "ListTrainingJobs": lambda request: training.store.list_page(request, "TrainingJobSummaries"),
            "StopTrainingJob": lambda request: training.stop(request["TrainingJobName"]),
            "UpdateTrainingJob": lambda request: training.update_warm_pool(
                request["TrainingJobName"], request.get("ResourceConfig", {}).get("KeepAlivePeriodInSeconds", 0)
            ),
            "CreateTransformJob": transform.create,
            "DescribeTransformJob": self._described(transform.store),
            "ListTransformJobs": lambda request: transform.store.list_page(request, "TransformJobSummaries"),
            "StopTransformJob": lambda request: transform.stop(request["TransformJobName"]),
        }

    def _of_hosting(self) -> dict[str, Handler]:
        endpoints = self.endpoints
        return {
            "CreateModel": self._create_model,
            "DescribeModel": self._described(self.models),
            "ListModels": lambda request: self.models.list_page(request, "Models"),
            "DeleteModel": lambda request: _nothing(self.models.remove(request["ModelName"])),
            "CreateEndpointConfig": self._create_config,
            "DescribeEndpointConfig": self._described(self.configs),
            "ListEndpointConfigs": lambda request: self.configs.list_page(request, "EndpointConfigs"),
            "DeleteEndpointConfig": lambda request: _nothing(self.configs.remove(request["EndpointConfigName"])),
            "CreateEndpoint": endpoints.create,
            "DescribeEndpoint": self._describe_endpoint,
            "ListEndpoints": lambda request: endpoints.records.list_page(request, "Endpoints"),
            "UpdateEndpoint": endpoints.update,
            "UpdateEndpointWeightsAndCapacities": endpoints.update_weights,
            "DeleteEndpoint": lambda request: endpoints.delete(request["EndpointName"]),
        }

    def _describe_endpoint(self, request: Request) -> dict[str, Any]:
        endpoint = self._described(self.endpoints.records)(request) or {}
        summary = capture_summary(self.capture.config_of(endpoint["EndpointConfigName"]))
        return {**endpoint, **({"DataCaptureConfig": summary} if summary else {})}

    def _of_tags(self) -> dict[str, Handler]:
        return {"AddTags": self._add_tags, "ListTags": self._list_tags, "DeleteTags": self._delete_tags}

    def _create_model(self, request: Request) -> dict[str, Any]:
        rules.check_model(request)
        return {"ModelArn": self.models.add(request)["ModelArn"]}

    def _create_config(self, request: Request) -> dict[str, Any]:
        rules.check_config(request, self.models)
        check_capture_config(request)
        return {"EndpointConfigArn": self.configs.add(request)["EndpointConfigArn"]}

    def _add_tags(self, request: Request) -> dict[str, Any]:
        record = find_by_arn(self.stores, request["ResourceArn"])
        record.tags.update({tag["Key"]: tag["Value"] for tag in request["Tags"]})
        return {"Tags": request["Tags"]}

    def _list_tags(self, request: Request) -> dict[str, Any]:
        record = find_by_arn(self.stores, request["ResourceArn"])
        return {"Tags": [{"Key": key, "Value": value} for key, value in record.tags.items()]}

    def _delete_tags(self, request: Request) -> None:
        record = find_by_arn(self.stores, request["ResourceArn"])
        for key in request["TagKeys"]:
            record.tags.pop(key, None)


def _nothing(_: object) -> None:
    return None

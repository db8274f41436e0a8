"""The operations by name: how closely each matches AWS, and the handler of its validated request.

docs/local-sagemaker.md shows the table `OPERATIONS`; a test keeps both equal. An operation or member that is not listed
is refused by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from local.sagemaker import endpoints as rules
from local.sagemaker.aws import AwsClients
from local.sagemaker.containers import ContainerRuntime
from local.sagemaker.endpoints import Endpoints
from local.sagemaker.faults import FaultInjector
from local.sagemaker.fleet import FleetManager
from local.sagemaker.invocations import DataCapture, InvocationHandler, capture_summary, check_capture_config
from local.sagemaker.records import RecordStore, find_by_arn
from local.sagemaker.rollout import Alarms
from local.sagemaker.settings import Settings
from local.sagemaker.training import TrainingJobs
from local.sagemaker.transform import TransformJobs

Request = Mapping[str, Any]
Handler = Callable[[Request], dict[str, Any] | None]
Level = Literal["like AWS", "simplified"]


@dataclass(frozen=True)
class Fidelity:
    """The fidelity of one operation: `honoured` members have an effect, `recorded` ones only appear in Describe."""

    level: Level
    note: str
    honoured: tuple[str, ...]
    recorded: tuple[str, ...] = ()

    @property
    def members(self) -> frozenset[str]:
        """All accepted members."""
        return frozenset((*self.honoured, *self.recorded))


_LIST_FILTERS = ("NameContains", "CreationTimeAfter", "CreationTimeBefore", "SortOrder", "MaxResults", "NextToken")
_LIST_FILTERS_WITH_STATUS = (*_LIST_FILTERS, "StatusEquals")
_LIST_NOTE = "sorted by creation time; filters by name, status and creation time, in pages"

OPERATIONS: dict[str, Fidelity] = {
    "CreateTrainingJob": Fidelity(
        "simplified",
        "one instance; File mode from S3 prefixes; own image or entry point; metrics are found when the job ends; "
        "spot saves 70 % always and is interrupted on demand alone; a warm pool is shown, and saves nothing",
        ("TrainingJobName", "HyperParameters", "AlgorithmSpecification", "RoleArn", "InputDataConfig",
         "OutputDataConfig", "ResourceConfig", "StoppingCondition", "Tags", "EnableManagedSpotTraining",
         "CheckpointConfig", "Environment"),
        ("VpcConfig", "EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "RetryStrategy",
         "ExperimentConfig", "RemoteDebugConfig", "InfraCheckConfig"),
    ),
    "DescribeTrainingJob": Fidelity("like AWS", "with every secondary status and its times", ("TrainingJobName",)),
    "ListTrainingJobs": Fidelity("simplified", _LIST_NOTE, _LIST_FILTERS_WITH_STATUS),
    "StopTrainingJob": Fidelity(
        "like AWS", "SIGTERM to process 1, SIGKILL 120 s later; what was made until then is uploaded",
        ("TrainingJobName",),
    ),
    "UpdateTrainingJob": Fidelity("simplified", "the warm pool's period alone", ("TrainingJobName", "ResourceConfig")),
    "CreateModel": Fidelity(
        "simplified", "one container with an image; model data as .tar.gz or as an S3 prefix",
        ("ModelName", "PrimaryContainer", "Containers", "ExecutionRoleArn", "Tags"),
        ("VpcConfig", "EnableNetworkIsolation"),
    ),
    "DescribeModel": Fidelity("like AWS", "", ("ModelName",)),
    "ListModels": Fidelity("simplified", _LIST_NOTE, _LIST_FILTERS),
    "DeleteModel": Fidelity("like AWS", "an endpoint that serves it goes on", ("ModelName",)),
    "CreateEndpointConfig": Fidelity(
        "simplified", "instances and serverless are one process a variant, whatever their count, type or memory; "
        "DataCaptureConfig captures requests of production variants that were answered with 200 (whether AWS captures "
        "others is not documented), and writes them every minute",
        ("EndpointConfigName", "ProductionVariants", "ShadowProductionVariants", "DataCaptureConfig", "Tags"),
        ("KmsKeyId", "ExecutionRoleArn", "VpcConfig", "EnableNetworkIsolation"),
    ),
    "DescribeEndpointConfig": Fidelity("like AWS", "", ("EndpointConfigName",)),
    "ListEndpointConfigs": Fidelity("simplified", _LIST_NOTE, _LIST_FILTERS),
    "DeleteEndpointConfig": Fidelity("like AWS", "an endpoint that serves it goes on", ("EndpointConfigName",)),
    "CreateEndpoint": Fidelity(
        "simplified", "a container that ends before it is healthy fails at once; one that ends later is not started "
        "again: its requests are answered with ModelError",
        ("EndpointName", "EndpointConfigName", "Tags"),
    ),
    "UpdateEndpoint": Fidelity(
        "simplified", "blue/green all at once, canary and linear; rolled back on alarm, on failure and on timeout; "
        "FailureReason says why also when the old fleet serves on (from memory, not from the documentation)",
        ("EndpointName", "EndpointConfigName", "RetainAllVariantProperties", "ExcludeRetainedVariantProperties",
         "DeploymentConfig", "RetainDeploymentConfig"),
    ),
    "UpdateEndpointWeightsAndCapacities": Fidelity(
        "simplified", "at once; instance counts are noted", ("EndpointName", "DesiredWeightsAndCapacities")
    ),
    "DescribeEndpoint": Fidelity(
        "simplified", "the old configuration until an update is through; data capture as it was configured",
        ("EndpointName",),
    ),
    "ListEndpoints": Fidelity("simplified", _LIST_NOTE, _LIST_FILTERS_WITH_STATUS),
    "DeleteEndpoint": Fidelity("simplified", "gone at once: never seen as Deleting", ("EndpointName",)),
    "CreateTransformJob": Fidelity(
        "simplified", "one instance, one request at a time; SplitType None and Line",
        ("TransformJobName", "ModelName", "MaxPayloadInMB", "BatchStrategy", "Environment", "TransformInput",
         "TransformOutput", "TransformResources", "Tags"),
        ("MaxConcurrentTransforms", "ModelClientConfig", "ExperimentConfig"),
    ),
    "DescribeTransformJob": Fidelity("like AWS", "", ("TransformJobName",)),
    "ListTransformJobs": Fidelity("simplified", _LIST_NOTE, _LIST_FILTERS_WITH_STATUS),
    "StopTransformJob": Fidelity("simplified", "after the object that it is at", ("TransformJobName",)),
    "AddTags": Fidelity("like AWS", "", ("ResourceArn", "Tags")),
    "ListTags": Fidelity("simplified", "all in one page", ("ResourceArn", "NextToken", "MaxResults")),
    "DeleteTags": Fidelity("like AWS", "", ("ResourceArn", "TagKeys")),
    "InvokeEndpoint": Fidelity(
        "simplified", "production variants by weight, TargetVariant, shadows; 60 s; the metrics Invocations, "
        "Invocation4XXErrors, Invocation5XXErrors, InvocationModelErrors, ModelLatency",
        ("EndpointName", "Body", "ContentType", "Accept", "CustomAttributes", "TargetVariant", "InferenceId"),
    ),
}  # fmt: skip
"""By operation; `InvokeEndpoint` is the runtime's, the others are SageMaker's own."""


def fidelity_table() -> str:
    """Return the table of the documentation."""
    rows = [f"| `{name}` | {each.level} | {each.note} |" for name, each in OPERATIONS.items()]
    return "\n".join(["| operation | worth | what it does |", "|---|---|---|", *rows])


class Operations:
    """The jobs, models and endpoints of one account and region, and the handler of each operation."""

    def __init__(self, settings: Settings, aws: AwsClients) -> None:
        self.settings, self.faults, self.aws = settings, FaultInjector(), aws
        self.containers, self.alarms = ContainerRuntime(settings, aws), Alarms(aws, settings.speed)
        kinds = ("TrainingJob", "TransformJob", "Model", "EndpointConfig", "Endpoint")
        self.stores = tuple(RecordStore(kind, settings.region) for kind in kinds)
        jobs, transforms, self.models, self.configs, records = self.stores
        fleets = FleetManager(self.models, self.configs, self.containers, aws)
        self.training = TrainingJobs(jobs, self.containers, aws, self.faults)
        self.endpoints = Endpoints(records, self.configs, fleets, self.alarms, self.faults, settings.speed)
        self.transform = TransformJobs(transforms, self.models, fleets, self.containers, aws, self.faults)
        self.capture = DataCapture(self.configs, aws, settings.speed)
        self.invoking = InvocationHandler(self.endpoints, aws, self.capture)
        self.handlers = self._handlers()

    def _described(self, store: RecordStore) -> Handler:
        def describe(request: Request) -> dict[str, Any]:
            record = store.get(request[f"{store.kind}Name"])
            return record.as_of(self.faults.describe_lag(record.name))

        return describe

    def _handlers(self) -> dict[str, Handler]:
        training, transform, endpoints = self.training, self.transform, self.endpoints
        handlers: dict[str, Handler] = {}
        for store in self.stores:
            handlers[f"Describe{store.kind}"] = self._described(store)
            handlers[f"List{store.kind}s"] = store.list_page
        return handlers | {
            "CreateTrainingJob": training.create,
            "StopTrainingJob": lambda request: training.stop(request["TrainingJobName"]),
            "UpdateTrainingJob": lambda request: training.update_warm_pool(
                request["TrainingJobName"], request.get("ResourceConfig", {}).get("KeepAlivePeriodInSeconds", 0)
            ),
            "CreateTransformJob": transform.create,
            "StopTransformJob": lambda request: transform.stop(request["TransformJobName"]),
            "CreateModel": self._create_model,
            "DeleteModel": lambda request: self.models.remove(request["ModelName"]),
            "CreateEndpointConfig": self._create_config,
            "DeleteEndpointConfig": lambda request: self.configs.remove(request["EndpointConfigName"]),
            "CreateEndpoint": endpoints.create,
            "DescribeEndpoint": self._describe_endpoint,
            "UpdateEndpoint": endpoints.update,
            "UpdateEndpointWeightsAndCapacities": endpoints.update_weights,
            "DeleteEndpoint": lambda request: endpoints.delete(request["EndpointName"]),
            "AddTags": self._add_tags,
            "ListTags": self._list_tags,
            "DeleteTags": self._delete_tags,
        }

    def _describe_endpoint(self, request: Request) -> dict[str, Any]:
        endpoint = self._described(self.endpoints.records)(request) or {}
        summary = capture_summary(self.capture.config_of(endpoint["EndpointConfigName"]))
        return {**endpoint, **({"DataCaptureConfig": summary} if summary else {})}

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

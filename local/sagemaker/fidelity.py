"""How closely each operation matches AWS. docs/local-sagemaker.md shows this table; a test keeps both equal.

An operation or member that is not listed is refused by name.
"""

from dataclasses import dataclass
from typing import Literal

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

"""The /opt/ml folder of a training container: its inputs, and the outputs that are saved after training."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from local.sagemaker.aws import AwsClients
from local.sagemaker.errors import NotImplementedLocally, ResourceFailure

FOLDERS = ("input/config", "input/data", "model", "output/data", "checkpoints")


def check_channels(request: Mapping[str, Any]) -> None:
    """Refuse channels that are not full copies of an S3 prefix or of one object."""
    if request["AlgorithmSpecification"].get("TrainingInputMode", "File") != "File":
        raise NotImplementedLocally("another TrainingInputMode than File")
    for channel in request.get("InputDataConfig", ()):
        source = channel["DataSource"].get("S3DataSource")
        name = channel["ChannelName"]
        if source is None or source["S3DataType"] != "S3Prefix":
            raise NotImplementedLocally(f"channel {name}: another data source than an S3Prefix")
        if channel.get("InputMode", "File") != "File" or channel.get("CompressionType", "None") != "None":
            raise NotImplementedLocally(f"channel {name}: InputMode or CompressionType")


def prepare_folder(folder: Path, job: Mapping[str, Any], aws: AwsClients) -> None:
    """Create the folder: configuration, channels, checkpoints of an earlier attempt.

    Raises:
        ResourceFailure: a channel has no objects; the message is that of AWS.
    """
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    channels = {}
    for channel in job.get("InputDataConfig", ()):
        source, name = channel["DataSource"]["S3DataSource"], channel["ChannelName"]
        if not aws.download(source["S3Uri"], folder / "input" / "data" / name):
            raise ResourceFailure(
                f'ClientError: Data download failed: No S3 objects found under S3 URL "{source["S3Uri"]}" '
                "given in input data source. Please ensure that the bucket exists in the selected region"
            )
        channels[name] = {
            "TrainingInputMode": "File",
            "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
            "RecordWrapperType": channel.get("RecordWrapperType", "None"),
        } | ({"ContentType": channel["ContentType"]} if "ContentType" in channel else {})
    if checkpoints := job.get("CheckpointConfig"):
        aws.download(checkpoints["S3Uri"].rstrip("/") + "/", folder / "checkpoints")
    config = job["ResourceConfig"]
    hosts = {
        "current_host": "algo-1",
        "current_instance_type": config.get("SelectedInstanceType") or config.get("InstanceType"),
        "current_group_name": "homogeneousCluster",
        "hosts": ["algo-1"],
        "network_interface_name": "lo",
    }
    files = {
        "hyperparameters": job.get("HyperParameters", {}),
        "inputdataconfig": channels,
        "resourceconfig": hosts,
        "checkpointconfig": checkpoints or {},
    }
    for name, content in files.items():
        (folder / "input" / "config" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def save_checkpoints(folder: Path, job: Mapping[str, Any], aws: AwsClients) -> None:
    """Copy the checkpoints to the job's S3 prefix, for an attempt that resumes from them."""
    if checkpoints := job.get("CheckpointConfig"):
        aws.upload(folder / "checkpoints", checkpoints["S3Uri"])


def save_outputs(folder: Path, job: Mapping[str, Any], aws: AwsClients, *, model: bool) -> str:
    """Upload the job's outputs to `<S3OutputPath>/<job>/output/`; return the model's address, "" without a model."""
    config = job["OutputDataConfig"]
    base = f"{config['S3OutputPath'].rstrip('/')}/{job['TrainingJobName']}/output"
    if any((folder / "output" / "data").iterdir()):
        aws.upload_tar(folder / "output" / "data", f"{base}/output.tar.gz")
    if not model or not any((folder / "model").iterdir()):
        return ""
    if config.get("CompressionType") == "NONE":
        aws.upload(folder / "model", f"{base}/model")
        return f"{base}/model/"
    aws.upload_tar(folder / "model", f"{base}/model.tar.gz")
    return f"{base}/model.tar.gz"


def failure_reason(folder: Path) -> str:
    """Return the content of output/failure, or a reference to the logs."""
    file = folder / "output" / "failure"
    try:
        return file.read_text(encoding="utf-8", errors="replace")[:1000]
    except OSError:
        return "See job logs for more information"


def parse_metrics(lines: Sequence[str], definitions: Iterable[Mapping[str, str]]) -> dict[str, float]:
    """Return the last value of each metric in the log, by the job's regular expressions; only numbers count."""
    values: dict[str, float] = {}
    for definition in definitions:
        expression = re.compile(definition["Regex"])
        for line in lines:
            for match in expression.finditer(line):
                with suppress(ValueError, IndexError):
                    values[definition["Name"]] = float(match.group(1))
    return values

"""Clients of the other AWS services (S3, CloudWatch, Logs, SNS), which moto emulates at the same address."""

import tarfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local.sagemaker.errors import ResourceFailure

MAX_METRICS_PER_CALL = 500


def split_s3_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an s3:// address. Raises ResourceFailure for other addresses."""
    if not uri.startswith("s3://"):
        raise ResourceFailure(f"ClientError: {uri!r} is not an s3:// address")
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


class AwsClients:
    """Clients for one address, and the operations that jobs and endpoints need."""

    def __init__(self, url: str, region: str) -> None:
        self.url, self.region = url, region
        config = Config(retries={"total_max_attempts": 3}, max_pool_connections=32)
        known = {"region_name": region, "aws_access_key_id": "local", "aws_secret_access_key": "local"}
        self.s3, self.logs, self.cloudwatch, self.sns = (
            boto3.client(name, endpoint_url=url, config=config, **known) for name in ("s3", "logs", "cloudwatch", "sns")
        )
        self._pending_metrics: dict[str, list[dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def download(self, uri: str, folder: Path) -> int:
        """Copy every object under an s3:// prefix into a folder; return the number of objects.

        Raises:
            ResourceFailure: the bucket cannot be listed.
        """
        bucket, prefix = split_s3_uri(uri)
        try:
            pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            keys = [str(listed["Key"]) for page in pages for listed in page.get("Contents", ())]
        except ClientError as cause:
            raise ResourceFailure(f'ClientError: Data download failed: {cause} (S3 URL "{uri}")') from cause
        keys = [key for key in keys if not key.endswith("/")]
        if upwards := [key for key in keys if ".." in key.split("/")]:
            raise ResourceFailure(f"ClientError: Data download failed: the key {upwards[0]!r} goes upwards")
        for key in keys:
            target = folder / (key.removeprefix(prefix).lstrip("/") or key.rsplit("/", 1)[-1])
            target.parent.mkdir(parents=True, exist_ok=True)
            self.s3.download_file(bucket, key, str(target))
        return len(keys)

    def upload(self, folder: Path, uri: str) -> None:
        """Copy every file of a folder to a prefix."""
        bucket, prefix = split_s3_uri(uri)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{prefix.rstrip('/')}/{path.relative_to(folder).as_posix()}"
                self.s3.upload_file(str(path), bucket, key)

    def upload_tar(self, folder: Path, uri: str) -> None:
        """Pack a folder's content as .tar.gz, and upload it to an address."""
        bucket, key = split_s3_uri(uri)
        packed = folder.with_suffix(".tar.gz")
        with tarfile.open(packed, "w:gz", compresslevel=1) as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, path.name)
        self.s3.upload_file(str(packed), bucket, key)
        packed.unlink()

    def download_tar(self, uri: str, folder: Path) -> None:
        """Download and unpack a .tar.gz. Raises ResourceFailure when it is missing or cannot be unpacked."""
        bucket, key = split_s3_uri(uri)
        packed = folder.with_suffix(".tar.gz")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.s3.download_file(bucket, key, str(packed))
            with tarfile.open(packed, "r:gz") as tar:
                tar.extractall(folder, filter="data")
        except (ClientError, tarfile.TarError) as cause:
            raise ResourceFailure(f"Failed to download model data for container from URL: {uri} ({cause})") from cause
        packed.unlink()

    def open_log(self, group: str, stream: str) -> None:
        """Create a log stream and its group, if they do not exist."""
        with suppress(ClientError):
            self.logs.create_log_group(logGroupName=group)
        with suppress(ClientError):
            self.logs.create_log_stream(logGroupName=group, logStreamName=stream)

    def log(self, group: str, stream: str, lines: Sequence[str]) -> None:
        """Write lines to a log stream; lines that cannot be written are lost, as on AWS."""
        now = time.time_ns() // 1_000_000
        for start in range(0, len(lines), 1000):
            events = [{"timestamp": now, "message": line[:200_000] or " "} for line in lines[start : start + 1000]]
            with suppress(ClientError, BotoCoreError):
                self.logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)

    def add_metrics(self, namespace: str, values: Mapping[str, float], dimensions: Mapping[str, str]) -> None:
        """Queue metrics, to be sent with the next `send_metrics`."""
        now = datetime.now(UTC)
        pairs = [{"Name": name, "Value": value} for name, value in dimensions.items()]
        data = [{"MetricName": name, "Value": value, "Dimensions": pairs, "Timestamp": now, "Unit": "None"}
                for name, value in values.items()]  # fmt: skip
        with self._lock:
            self._pending_metrics.setdefault(namespace, []).extend(data)

    def send_metrics(self) -> None:
        """Send the queued metrics."""
        with self._lock:
            waiting, self._pending_metrics = self._pending_metrics, {}
        for namespace, data in waiting.items():
            for start in range(0, len(data), MAX_METRICS_PER_CALL):
                part = data[start : start + MAX_METRICS_PER_CALL]
                self.cloudwatch.put_metric_data(Namespace=namespace, MetricData=part)

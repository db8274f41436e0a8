"""Data capture: a share of an endpoint's requests and responses as JSON lines in S3, in AWS's documented format."""

import base64
import json
import random
import threading
import uuid
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

from local.sagemaker.aws import AwsClients, split_s3_uri
from local.sagemaker.errors import NotImplementedLocally
from local.sagemaker.records import RecordStore

WRITE_SECONDS = 60.0
"""Seconds between two writes of captured data; AWS documents "within minutes"."""
INFERENCE_ID_HEADER = "X-Amzn-SageMaker-Inference-Id"
MAX_LINES_PER_FILE = 1000


class DataCapture:
    """Captures data of endpoints, by the configuration that a fleet was started with."""

    def __init__(self, configs: RecordStore, aws: AwsClients, speed: float) -> None:
        self._configs, self._aws, self._period = configs, aws, WRITE_SECONDS / speed
        self._lines: defaultdict[str, list[str]] = defaultdict(list)
        self._lock, self._writing, self._ended = threading.Lock(), threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="data-capture")

    def start(self) -> None:
        """Start writing captured data periodically."""
        self._thread.start()

    def stop(self) -> None:
        """Write the remaining data, and end."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self.flush()

    def capture(
        self, endpoint: str, config: Mapping[str, Any], variant: str, body: bytes, headers: Mapping[str, str],
        response: httpx.Response,
    ) -> None:  # fmt: skip
        """Capture a request and its response, if they are sampled; `config` is a `DataCaptureConfig`."""
        if not config.get("EnableCapture", True) or random.random() * 100 >= config["InitialSamplingPercentage"]:  # noqa: S311 - traffic, no secret
            return
        modes = {each["CaptureMode"] for each in config["CaptureOptions"]}
        sent = _captured_part("INPUT", headers.get("Content-Type", ""), body, config)
        received = _captured_part("OUTPUT", response.headers.get("Content-Type", ""), response.content, config)
        both = {"endpointInput": (sent, "Input"), "endpointOutput": (received, "Output")}
        parts = {name: part for name, (part, mode) in both.items() if modes & {mode, "InputAndOutput"}}
        now = datetime.now(UTC)
        metadata = {"eventId": str(uuid.uuid4()), "inferenceTime": f"{now:%Y-%m-%dT%H:%M:%SZ}"}
        if inference_id := headers.get(INFERENCE_ID_HEADER):
            metadata["inferenceId"] = inference_id
        line = json.dumps({"captureData": parts, "eventMetadata": metadata, "eventVersion": "0"})
        place = f"{config['DestinationS3Uri'].rstrip('/')}/{endpoint}/{variant}/{now:%Y/%m/%d/%H}"
        with self._lock:
            self._lines[place].append(line)

    def config_of(self, config: str) -> Mapping[str, Any] | None:
        """Return the `DataCaptureConfig` of an endpoint configuration; None when there is none."""
        capture_config = self._configs.get(config).get("DataCaptureConfig") if self._configs.has(config) else None
        return dict(capture_config) if capture_config else None

    def flush(self) -> None:
        """Write what was captured before this call: one or more files for each endpoint, variant and hour.

        It also waits for what another thread is writing just now.
        """
        with self._writing:
            with self._lock:
                waiting, self._lines = self._lines, defaultdict(list)
            for place, lines in waiting.items():
                for start in range(0, len(lines), MAX_LINES_PER_FILE):
                    self._write(place, lines[start : start + MAX_LINES_PER_FILE])

    def _write(self, place: str, lines: list[str]) -> None:
        now = datetime.now(UTC)
        name = f"{now:%M-%S}-{now.microsecond // 1000:03d}-{uuid.uuid4()}.jsonl"
        bucket, key = split_s3_uri(f"{place}/{name}")
        self._aws.s3.put_object(Bucket=bucket, Key=key, Body="".join(f"{line}\n" for line in lines).encode())

    def _run(self) -> None:
        while not self._ended.wait(self._period):
            self.flush()


def check_capture_config(request: Mapping[str, Any]) -> None:
    """Refuse a `DataCaptureConfig` with features that are not implemented here."""
    config = request.get("DataCaptureConfig", {})
    if not config.get("DestinationS3Uri", "s3://").startswith("s3://"):
        raise NotImplementedLocally("a DestinationS3Uri that is not an s3:// address")
    if config.get("EnableCapture", True) and config and request.get("ShadowProductionVariants"):
        raise NotImplementedLocally("data capture together with shadow variants")


def capture_summary(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return DescribeEndpoint's summary of the data capture."""
    if config is None:
        return None
    enabled = bool(config.get("EnableCapture", True))
    return {
        "EnableCapture": enabled,
        "CaptureStatus": "Started" if enabled else "Stopped",
        "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
        "DestinationS3Uri": config["DestinationS3Uri"],
        "KmsKeyId": config.get("KmsKeyId", ""),
    }


def _captured_part(mode: str, content_type: str, data: bytes, config: Mapping[str, Any]) -> dict[str, str]:
    """Return a request or response in the format of a line: as text if its content type is listed, else in base64."""
    listed, kind = config.get("CaptureContentTypeHeader", {}), content_type.partition(";")[0].strip().lower()
    encoding = "BASE64"
    for name, types in (("JSON", "JsonContentTypes"), ("CSV", "CsvContentTypes")):
        if kind in (each.lower() for each in listed.get(types, ())):
            encoding = name
    text = base64.b64encode(data).decode() if encoding == "BASE64" else data.decode(errors="replace")
    return {"observedContentType": content_type, "mode": mode, "data": text, "encoding": encoding}

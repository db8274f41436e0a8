"""Invocations: one request to one variant, its copies to the shadow variants, the metrics, and data capture.

Data capture writes a share of an endpoint's requests and responses to S3, as JSON lines in AWS's documented format.
"""

import base64
import json
import random
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

from local.sagemaker.aws import AwsClients, split_s3_uri
from local.sagemaker.endpoints import Endpoints
from local.sagemaker.errors import ApiError, NotImplementedLocally
from local.sagemaker.fleet import Fleet, Variant, choose_variant
from local.sagemaker.records import RecordStore
from local.sagemaker.settings import ACCOUNT

MAX_BODY_BYTES = 25 * 1024 * 1024
INFERENCE_ID_HEADER = "X-Amzn-SageMaker-Inference-Id"
CUSTOM_ATTRIBUTES_HEADER = "X-Amzn-SageMaker-Custom-Attributes"
FORWARDED_HEADERS = ("Content-Type", "Accept", CUSTOM_ATTRIBUTES_HEADER, INFERENCE_ID_HEADER)
WRITE_SECONDS = 60.0
"""Seconds between two writes of captured data; AWS documents "within minutes"."""
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


class InvocationHandler:
    """Handles `InvokeEndpoint`."""

    def __init__(self, endpoints: Endpoints, aws: AwsClients, capture: DataCapture) -> None:
        self._endpoints, self._aws, self._capture = endpoints, aws, capture

    def invoke(
        self, name: str, body: bytes, headers: Mapping[str, str], variant: str | None
    ) -> tuple[httpx.Response, str]:
        """Return the model's response and the name of its variant.

        Raises:
            ApiError: there is no such endpoint or variant (ValidationError), or the model failed (ModelError).
        """
        if len(body) > MAX_BODY_BYTES:
            raise ApiError("ValidationError", f"the body has {len(body)} bytes; the limit is {MAX_BODY_BYTES}", 413)
        with self._endpoints.traffic.track_request(name) as fleet:
            if fleet is None:
                raise ApiError("ValidationError", f"Endpoint {name} of account {ACCOUNT} not found.")
            chosen = self._chosen(fleet, variant, name)
            self._shadow(fleet, body, headers)
            response = self._ask(name, chosen, body, headers)
            if captured := self._capture.config_of(fleet.config):
                self._capture.capture(name, captured, chosen.name, body, headers, response)
            return response, chosen.name

    def _chosen(self, fleet: Fleet, variant: str | None, endpoint: str) -> Variant:
        if variant is None:
            return choose_variant(fleet)
        if variant not in fleet.production:
            raise ApiError(
                "ValidationError", f"Variant {variant} not found for Endpoint {endpoint} of account {ACCOUNT}"
            )
        return fleet.production[variant]

    def _ask(self, endpoint: str, variant: Variant, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        begin, status, text = time.monotonic(), 0, ""
        response: httpx.Response | None = None
        try:
            response = variant.container.invoke(body, headers)
            status, text = response.status_code, response.text if response.status_code >= 400 else ""
        except httpx.TimeoutException:
            text = "Your invocation timed out while waiting for a response from container primary."
        except httpx.TransportError as cause:
            text = f"the container does not respond: {type(cause).__name__}"
        self._measure(endpoint, variant, status, time.monotonic() - begin)
        if response is None or status >= 400:
            raise _model_error(endpoint, variant, status, text)
        return response

    def _shadow(self, fleet: Fleet, body: bytes, headers: Mapping[str, str]) -> None:
        def copy(variant: Variant) -> None:
            try:
                variant.container.invoke(body, headers)
            except httpx.TransportError:
                return
            finally:
                self._endpoints.traffic.finish_request(fleet)

        for variant in [each for each in fleet.variants.values() if each.shadow]:
            self._endpoints.traffic.track_copy(fleet)
            threading.Thread(target=copy, args=(variant,), daemon=True).start()

    def _measure(self, endpoint: str, variant: Variant, status: int, seconds: float) -> None:
        failed = status >= 500 or status == 0
        values = {
            "Invocations": 1.0,
            "Invocation4XXErrors": float(400 <= status < 500),
            "Invocation5XXErrors": float(failed),
            "InvocationModelErrors": float(failed or status >= 400),
            "ModelLatency": seconds * 1e6,
        }
        self._aws.add_metrics("AWS/SageMaker", values, {"EndpointName": endpoint, "VariantName": variant.name})


def _model_error(endpoint: str, variant: Variant, status: int, text: str) -> ApiError:
    kind = "client" if 400 <= status < 500 else "server"
    message = f'Received {kind} error ({status}) from primary with message "{text[:1000]}". See '
    message += f"https://console.aws.amazon.com/cloudwatch for the log group /aws/sagemaker/Endpoints/{endpoint}."
    return ApiError("ModelError", message, 424, OriginalStatusCode=status or 500, OriginalMessage=text[:1000])


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

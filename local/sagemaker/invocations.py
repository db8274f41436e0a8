"""Invocations: one request to one variant, its copies to the shadow variants, and the metrics."""

import threading
import time
from collections.abc import Mapping

import httpx

from local.sagemaker.aws import AwsClients
from local.sagemaker.capture import DataCapture
from local.sagemaker.endpoints import Endpoints
from local.sagemaker.errors import ApiError
from local.sagemaker.fleet import Fleet, Variant, choose_variant
from local.sagemaker.settings import ACCOUNT

MAX_BODY_BYTES = 25 * 1024 * 1024
CUSTOM_ATTRIBUTES_HEADER = "X-Amzn-SageMaker-Custom-Attributes"
FORWARDED_HEADERS = ("Content-Type", "Accept", CUSTOM_ATTRIBUTES_HEADER, "X-Amzn-SageMaker-Inference-Id")


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

        for variant in fleet.shadows:
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

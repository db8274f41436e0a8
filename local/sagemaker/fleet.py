"""Fleets: the containers of one endpoint configuration, and their share of the endpoint's traffic."""

import random
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from local.processes import free_port
from local.sagemaker.aws import AwsClients
from local.sagemaker.containers import Container, ContainerRuntime, timestamp_ms
from local.sagemaker.errors import ResourceFailure
from local.sagemaker.records import RecordStore

STARTUP_SECONDS = 480.0
"""Seconds that SageMaker waits for the first healthy /ping, unless the variant sets another time."""
PING_SECONDS = 0.05
INVOCATION_TIMEOUT_SECONDS = 60.0
DRAIN_SECONDS = 60.0
STOP_SECONDS = 0.5
"""Seconds that a model container gets to stop; it has no state to save."""


class ModelContainer:
    """An HTTP client for one model in a container."""

    def __init__(self, container: Container, port: int) -> None:
        self.container = container
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=16)
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, limits=limits)

    def healthy(self) -> bool:
        """Whether /ping responds 200 within 2 s, as SageMaker requires."""
        try:
            return self._client.get("/ping", timeout=2.0).status_code == 200
        except httpx.TransportError:
            return False

    def invoke(
        self, body: bytes, headers: Mapping[str, str], seconds: float = INVOCATION_TIMEOUT_SECONDS
    ) -> httpx.Response:
        """Send one inference request. Raises httpx.TransportError."""
        return self._client.post("/invocations", content=body, headers=dict(headers), timeout=seconds)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


@dataclass
class Variant:
    """One production or shadow variant of a fleet."""

    name: str
    container: ModelContainer
    weight: float
    instances: int | None
    shadow: bool = False


@dataclass(eq=False)
class Fleet:
    """All variants of one endpoint configuration. `traffic_share` of the endpoint's traffic goes to it."""

    config: str
    variants: dict[str, Variant] = field(default_factory=dict)
    traffic_share: float = 0.0
    in_flight: int = 0
    """Number of requests in flight; only `TrafficRouter` changes it."""

    @property
    def production(self) -> dict[str, Variant]:
        """The variants whose responses are returned to callers."""
        return {name: variant for name, variant in self.variants.items() if not variant.shadow}


class TrafficRouter:
    """Routes requests to fleets. A fleet is stopped only after its counted requests have finished."""

    def __init__(self) -> None:
        self._fleets: dict[str, list[Fleet]] = {}
        self._lock = threading.Lock()

    def fleets(self, endpoint: str) -> list[Fleet]:
        """Return the fleets of an endpoint, the live one first."""
        with self._lock:
            return list(self._fleets.get(endpoint, ()))

    def route(self, endpoint: str, *fleets: Fleet) -> None:
        """Route the endpoint's requests to these fleets only."""
        with self._lock:
            self._fleets[endpoint] = list(fleets)

    @contextmanager
    def track_request(self, endpoint: str) -> Iterator[Fleet | None]:
        """Yield the fleet for one request, or None when there is none; the fleet is not stopped during the block."""
        with self._lock:
            fleets = self._fleets.get(endpoint)
            fleet = choose_fleet(fleets) if fleets else None
            if fleet:
                fleet.in_flight += 1
        try:
            yield fleet
        finally:
            if fleet:
                self.finish_request(fleet)

    def track_copy(self, fleet: Fleet) -> None:
        """Count the copy of a request for a shadow variant."""
        with self._lock:
            fleet.in_flight += 1

    def finish_request(self, fleet: Fleet) -> None:
        """Count a request as finished."""
        with self._lock:
            fleet.in_flight -= 1


def choose_fleet(fleets: list[Fleet]) -> Fleet:
    """Choose the fleet for one request by the shares of the traffic."""
    with_traffic = [fleet for fleet in fleets if fleet.traffic_share > 0] or fleets[:1]
    shares = [max(fleet.traffic_share, 1e-9) for fleet in with_traffic]
    return random.choices(with_traffic, shares)[0]  # noqa: S311 - traffic, no secret


def choose_variant(fleet: Fleet) -> Variant:
    """Choose the variant for one request by weight."""
    variants = list(fleet.production.values())
    weights = [variant.weight for variant in variants]
    return random.choices(variants, weights if any(weights) else None)[0]  # noqa: S311 - traffic, no secret


class FleetManager:
    """Starts and stops fleets."""

    def __init__(
        self, models: RecordStore, configs: RecordStore, containers: ContainerRuntime, aws: AwsClients
    ) -> None:
        self._models, self._configs, self._containers, self._aws = models, configs, containers, aws

    def start(self, endpoint: str, config: str, ended: threading.Event) -> Fleet:
        """Start all variants, and return the fleet when all are healthy; it has no traffic yet.

        Raises:
            ResourceFailure: a variant does not become healthy; the whole fleet is stopped.
        """
        fleet, content = Fleet(config), self._configs.get(config).content
        shadows = [{**variant, "shadow": True} for variant in content.get("ShadowProductionVariants", ())]
        try:
            for variant in [*content["ProductionVariants"], *shadows]:
                fleet.variants[variant["VariantName"]] = self._variant(endpoint, variant, ended)
        except ResourceFailure:
            self.stop(fleet)
            raise
        return fleet

    def _variant(self, endpoint: str, variant: Mapping[str, Any], ended: threading.Event) -> Variant:
        name = variant["VariantName"]
        startup = variant.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_SECONDS)
        log = (f"/aws/sagemaker/Endpoints/{endpoint}", f"{name}/i-{timestamp_ms():x}")
        try:
            served = self.start_model(variant["ModelName"], {}, log, startup, ended)
        except ResourceFailure as failure:
            raise ResourceFailure(f"{failure} (production variant {name}, model {variant['ModelName']})") from failure
        count = variant.get("InitialInstanceCount", None if variant.get("ServerlessConfig") else 1)
        return Variant(name, served, variant.get("InitialVariantWeight", 1.0), count, variant.get("shadow", False))

    def start_model(
        self, model: str, variables: Mapping[str, str], log: tuple[str, str], startup: float, ended: threading.Event
    ) -> ModelContainer:
        """Start a model's container and wait until it is healthy. Raises ResourceFailure."""
        record = self._models.get(model)
        container = record.get("PrimaryContainer") or record["Containers"][0]
        folder, port = self._containers.new_folder(model), free_port(0)
        (folder / "model").mkdir(parents=True)
        try:
            self._download_model(container, folder)
            own = {"SAGEMAKER_BIND_TO_PORT": str(port), "SAGEMAKER_SAFE_PORT_RANGE": f"{port}-{port + 1}"}
            environment = own | container.get("Environment", {}) | dict(variables)
            started = self._containers.start(container["Image"], "serve", folder, environment, log)
        except ResourceFailure:
            shutil.rmtree(folder.parent, ignore_errors=True)
            raise
        served = ModelContainer(started, port)
        deadline = time.monotonic() + startup
        while time.monotonic() < deadline and started.alive and not ended.is_set():
            if served.healthy():
                return served
            ended.wait(PING_SECONDS)
        self.stop_model(served)
        raise ResourceFailure(
            "The primary container did not pass the ping health check. Please check CloudWatch logs for this "
            f"endpoint. Its last log lines: {started.last_lines()}"
        )

    def _download_model(self, container: Mapping[str, Any], folder: Any) -> None:
        source = container.get("ModelDataSource", {}).get("S3DataSource", {})
        if source.get("CompressionType") == "None":
            if not self._aws.download(source["S3Uri"], folder / "model"):
                raise ResourceFailure(f"Could not find model data at {source['S3Uri']}.")
        elif packed := container.get("ModelDataUrl") or source.get("S3Uri"):
            self._aws.download_tar(packed, folder / "model")

    def stop_model(self, served: ModelContainer) -> None:
        """Stop one container, and remove its folder."""
        self._containers.stop_container(served.container, STOP_SECONDS)
        served.close()
        shutil.rmtree(served.container.folder.parent, ignore_errors=True)

    def stop(self, fleet: Fleet) -> None:
        """Stop a fleet after its last request has finished."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while fleet.in_flight and time.monotonic() < deadline:
            time.sleep(0.01)
        for variant in fleet.variants.values():
            self.stop_model(variant.container)

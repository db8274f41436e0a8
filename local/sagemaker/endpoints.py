"""Models, endpoint configurations and endpoints: the operations, and the life cycle of an endpoint."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from local.sagemaker.errors import NotImplementedLocally, ResourceFailure, validation_error
from local.sagemaker.faults import FaultInjector
from local.sagemaker.fleet import Fleet, FleetManager, TrafficRouter
from local.sagemaker.records import Record, RecordStore
from local.sagemaker.rollout import ALL_AT_ONCE, Alarms, RollbackFailed, RolledBack, Rollout, check_deployment

STUCK_POLL_SECONDS = 0.05


class Endpoints:
    """All endpoints of this server, and the fleets of each, the live one first."""

    def __init__(
        self,
        store: RecordStore,
        configs: RecordStore,
        fleets: FleetManager,
        alarms: Alarms,
        faults: FaultInjector,
        speed: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.records, self._configs, self._fleets = store, configs, fleets
        self._alarms, self._faults, self._speed, self.clock = alarms, faults, speed, clock
        self.traffic = TrafficRouter()
        self._deleted: dict[str, threading.Event] = {}

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Create an endpoint, which starts in the background."""
        self._configs.get(request["EndpointConfigName"])
        if request.get("DeploymentConfig"):
            raise NotImplementedLocally("CreateEndpoint.DeploymentConfig")
        endpoint = self.records.add(request, EndpointStatus="Creating")
        self._deleted[endpoint.name] = threading.Event()
        self._in_background(endpoint, self._first)
        return {"EndpointArn": endpoint["EndpointArn"]}

    def update(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Update an endpoint to another configuration. Raises ApiError when it is not in service."""
        endpoint, config = self.records.get(request["EndpointName"]), self._configs.get(request["EndpointConfigName"])
        deployment = request.get("DeploymentConfig") or {}
        if request.get("RetainDeploymentConfig"):
            deployment = endpoint.get("LastDeploymentConfig", {})
        check_deployment(deployment, self._configs.get(endpoint["EndpointConfigName"]), config, self._alarms)
        with endpoint.lock:
            if endpoint["EndpointStatus"] not in ("InService", "UpdateRollbackFailed"):
                raise validation_error(f'Cannot update in-progress endpoint "{endpoint["EndpointArn"]}".')
            pending = {"EndpointConfigName": config.name}
            endpoint.update(EndpointStatus="Updating", FailureReason=None, PendingDeploymentSummary=pending)
        retained = bool(request.get("RetainAllVariantProperties"))
        excluded = {each["VariantPropertyType"] for each in request.get("ExcludeRetainedVariantProperties", ())}
        self._in_background(endpoint, lambda found: self._next(found, config.name, deployment, retained, excluded))
        return {"EndpointArn": endpoint["EndpointArn"]}

    def update_weights(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Change weights and instance counts (UpdateEndpointWeightsAndCapacities)."""
        endpoint = self.records.get(request["EndpointName"])
        with endpoint.lock:
            if endpoint["EndpointStatus"] != "InService":
                raise validation_error(f'Cannot update in-progress endpoint "{endpoint["EndpointArn"]}".')
            production = self.traffic.fleets(endpoint.name)[0].production
            desired = request["DesiredWeightsAndCapacities"]
            if unknown := [each["VariantName"] for each in desired if each["VariantName"] not in production]:
                raise validation_error(
                    f'The variant name(s) "{", ".join(unknown)}" is/are not present within endpoint '
                    f'configuration "{endpoint["EndpointConfigName"]}".'
                )
            for each in desired:
                variant = production[each["VariantName"]]
                variant.weight = each.get("DesiredWeight", variant.weight)
                variant.instances = each.get("DesiredInstanceCount", variant.instances)
            endpoint.update(ProductionVariants=_variant_summaries(self.traffic.fleets(endpoint.name)[0], shadow=False))
        return {"EndpointArn": endpoint["EndpointArn"]}

    def delete(self, name: str) -> None:
        """Delete an endpoint. Raises ApiError while it is being updated."""
        endpoint = self.records.get(name)
        if endpoint["EndpointStatus"] in ("Updating", "RollingBack"):
            raise validation_error(f'Cannot update in-progress endpoint "{endpoint["EndpointArn"]}".')
        self.records.remove(name)
        self._deleted.pop(name).set()
        fleets = self.traffic.fleets(name)
        self.traffic.route(name)
        for fleet in fleets:
            threading.Thread(target=self._fleets.stop, args=(fleet,), daemon=True).start()

    def _in_background(self, endpoint: Record, work: Any) -> None:
        def run() -> None:
            while self._faults.fires("stuck", endpoint.name) and not ended.wait(STUCK_POLL_SECONDS):
                pass
            try:
                if not ended.is_set():
                    work(endpoint)
            except Exception as mistake:  # a bug here must not leave the endpoint in its state
                endpoint.update(EndpointStatus="Failed", FailureReason=f"{type(mistake).__name__}: {mistake}")

        ended = self._deleted[endpoint.name]
        threading.Thread(target=run, daemon=True, name=endpoint.name).start()

    def _first(self, endpoint: Record) -> None:
        try:
            fleet = self._start(endpoint, endpoint["EndpointConfigName"])
        except ResourceFailure as failure:
            endpoint.update(EndpointStatus="Failed", FailureReason=str(failure)[:1024])
            return
        fleet.traffic_share = 1.0
        self.traffic.route(endpoint.name, fleet)
        endpoint.update(EndpointStatus="InService", **_variant_members(fleet))

    def _next(
        self, endpoint: Record, config: str, deployment: Mapping[str, Any], retained: bool, excluded: set[str]
    ) -> None:
        """Start the new fleet next to the old one, shift the traffic, and stop the old fleet; or keep the old one."""
        old = self.traffic.fleets(endpoint.name)
        if self._faults.fires("lost", endpoint.name):
            self.traffic.route(endpoint.name)
            for fleet in old:
                self._fleets.stop(fleet)
            endpoint.update(
                EndpointStatus="Failed", FailureReason="Request to service failed", PendingDeploymentSummary=None
            )
            return
        try:
            new = self._start(endpoint, config)
            if retained:
                _retain_variant_properties(old[0], new, excluded)
            self.traffic.route(endpoint.name, *old, new)
            ended = self._deleted[endpoint.name]
            rollout = Rollout(endpoint, old, new, self._alarms, self._faults, self._speed, ended, self.clock)
            rollout.run(deployment or ALL_AT_ONCE)
        except RollbackFailed as failed:  # both fleets keep running, each with a share of the traffic
            endpoint.update(EndpointStatus="UpdateRollbackFailed", FailureReason=str(failed)[:1024],
                            PendingDeploymentSummary=None)  # fmt: skip
            return
        except (ResourceFailure, RolledBack) as failure:
            started = [fleet for fleet in self.traffic.fleets(endpoint.name) if fleet not in old]
            self.traffic.route(endpoint.name, *old)
            for fleet in started:
                self._fleets.stop(fleet)
            endpoint.update(EndpointStatus="InService", FailureReason=str(failure)[:1024],
                            PendingDeploymentSummary=None)  # fmt: skip
            return
        self.traffic.route(endpoint.name, new)
        last = deployment or None
        endpoint.update(EndpointStatus="InService", EndpointConfigName=config, LastDeploymentConfig=last,
                        PendingDeploymentSummary=None, **_variant_members(new))  # fmt: skip
        for fleet in old:
            self._fleets.stop(fleet)

    def _start(self, endpoint: Record, config: str) -> Fleet:
        for variant in self._configs.get(config)["ProductionVariants"]:
            if self._faults.fires("capacity", f"{variant.get('InstanceType', '')} {endpoint.name}"):
                raise ResourceFailure(
                    "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error. "
                    "Please retry using a different ML instance type or after some time."
                )
        ended = self._deleted[endpoint.name]
        fleet = self._fleets.start(endpoint.name, config, ended)
        if ended.is_set():
            self._fleets.stop(fleet)
            raise ResourceFailure("the endpoint was deleted")
        return fleet


def check_config(request: Mapping[str, Any], models: RecordStore) -> None:
    """Refuse a configuration whose models do not exist, or with variants of a kind that is not implemented."""
    for variant in [*request["ProductionVariants"], *request.get("ShadowProductionVariants", ())]:
        if "ModelName" not in variant:
            raise NotImplementedLocally("a variant without a model (inference components)")
        models.get(variant["ModelName"])
        if not variant.get("InstanceType") and not variant.get("ServerlessConfig"):
            raise validation_error(f"variant {variant['VariantName']} needs InstanceType or ServerlessConfig")


def check_model(request: Mapping[str, Any]) -> None:
    """Refuse models with several containers or without an image."""
    containers = [request["PrimaryContainer"]] if "PrimaryContainer" in request else request.get("Containers", [])
    if len(containers) != 1:
        raise NotImplementedLocally("a model of several containers, or of none")
    if "Image" not in containers[0]:
        raise NotImplementedLocally("a container without Image (model packages)")
    if containers[0].get("Mode", "SingleModel") != "SingleModel":
        raise NotImplementedLocally("multi-model containers")


def _retain_variant_properties(old: Fleet, new: Fleet, excluded: set[str]) -> None:
    for name, variant in new.production.items():
        if previous := old.production.get(name):
            variant.weight = variant.weight if "DesiredWeight" in excluded else previous.weight
            variant.instances = variant.instances if "DesiredInstanceCount" in excluded else previous.instances


def _variant_members(fleet: Fleet) -> dict[str, Any]:
    production, shadows = _variant_summaries(fleet, shadow=False), _variant_summaries(fleet, shadow=True)
    return {"ProductionVariants": production, "ShadowProductionVariants": shadows or None}


def _variant_summaries(fleet: Fleet, *, shadow: bool) -> list[dict[str, Any]]:
    return [
        {
            "VariantName": variant.name,
            "CurrentWeight": variant.weight,
            "DesiredWeight": variant.weight,
            "CurrentInstanceCount": variant.instances,
            "DesiredInstanceCount": variant.instances,
        }
        for variant in fleet.variants.values()
        if variant.shadow is shadow
    ]

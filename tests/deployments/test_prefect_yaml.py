"""The deployments of `prefect.yaml`: each flow loads, each form is described, and the list is reviewed in git."""

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.flows import load_flow_from_entrypoint

from tests.checkout import ROOT

DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
NAMES = [deployment["name"] for deployment in DEPLOYMENTS]
SNAPSHOT = Path(__file__).with_name("deployments.json")


def loaded(deployment: dict[str, Any]) -> Flow[Any, Any]:
    """Load the flow from its path as a worker does, and restore `sys.path`."""
    before = list(sys.path)
    try:
        return load_flow_from_entrypoint(str(ROOT / deployment["entrypoint"]), use_placeholder_flow=False)
    finally:
        sys.path[:] = before


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=NAMES)
def test_an_entrypoint_loads_for_real(deployment: dict[str, Any]) -> None:
    flow = loaded(deployment)
    assert flow.name == Path(deployment["entrypoint"].partition(":")[0]).stem


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=NAMES)
def test_every_field_of_the_form_is_described(deployment: dict[str, Any]) -> None:
    properties = loaded(deployment).parameters.model_dump()["properties"]
    bare = [name for name, field in properties.items() if len(field.get("description", "")) < 10]
    assert not bare


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=NAMES)
def test_the_deployment_s_own_parameters_fit_the_form(deployment: dict[str, Any]) -> None:
    """Validation must not raise."""
    flow = loaded(deployment)
    given = deployment.get("parameters", {})
    required = {n for n, p in inspect.signature(flow.fn).parameters.items() if p.default is inspect.Parameter.empty}
    flow.validate_parameters({**dict.fromkeys(required, "churn"), **given})


def test_the_deployments_are_those_that_were_reviewed() -> None:
    """Nothing rewrites deployments.json: edit it by hand, so that a reviewer sees the change."""
    seen = [
        {
            "name": f"{flow.name}/{deployment['name']}",
            "entrypoint": deployment["entrypoint"],
            "schedules": deployment.get("schedules", []),
            "pool": deployment["work_pool"]["name"],
            "parameters": deployment.get("parameters", {}),
            "concurrency_limit": deployment.get("concurrency_limit"),
            "form": {
                name: field.get("default", "(required)")
                for name, field in flow.parameters.model_dump()["properties"].items()
            },
        }
        for deployment in DEPLOYMENTS
        for flow in [loaded(deployment)]
    ]
    assert seen == json.loads(SNAPSHOT.read_text())


def test_the_code_of_every_run_is_pulled_by_our_step() -> None:
    assert yaml.safe_load((ROOT / "prefect.yaml").read_text())["pull"] == [{"deployments.pull.check_out_code": {}}]
    assert not any("pull" in deployment for deployment in DEPLOYMENTS)


def test_every_file_in_flows_that_holds_a_flow_is_deployed() -> None:
    files = {path.stem for path in (ROOT / "flows").glob("*.py") if "@flow" in path.read_text()}
    assert files == {Path(deployment["entrypoint"].partition(":")[0]).stem for deployment in DEPLOYMENTS}

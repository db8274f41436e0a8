"""Hooks of flows: every flow sends its run log as the environment says, and flows with paid jobs stop them."""

import inspect
from importlib import import_module
from pathlib import Path
from uuid import uuid4

import pytest
from prefect import Flow
from prefect.client.schemas import FlowRun
from prefect.states import Running

from flows.options import begin_run, end_order
from flows.stopping import stop_batch_inference_jobs, stop_training_jobs
from tasks.notification.delivery import open_causes
from tasks.shared.actions import FLOW_ACTIONS
from tests.checkout import ROOT
from tests.fakes.environment import NOW, World

FLOWS = {
    found.name: found
    for path in sorted((ROOT / "flows").glob("[!_]*.py"))
    for found in vars(import_module(f"flows.{path.stem}")).values()
    if isinstance(found, Flow)
}


@pytest.mark.parametrize("name", FLOWS)
def test_every_flow_keeps_its_log(name: str) -> None:
    assert FLOWS[name].on_running_hooks == [begin_run]


def test_whoever_pays_for_jobs_stops_them() -> None:
    for name in ("retrain", "experiment"):
        assert stop_training_jobs in FLOWS[name].on_cancellation_hooks
        assert stop_training_jobs in FLOWS[name].on_crashed_hooks
    assert stop_batch_inference_jobs in FLOWS["batch_inference"].on_cancellation_hooks


@pytest.mark.parametrize("name", [name for name in FLOW_ACTIONS])
def test_however_a_run_ends_its_order_ends_with_it(name: str) -> None:
    flow = FLOWS[name]
    for hooks in (
        flow.on_completion_hooks, flow.on_failure_hooks, flow.on_cancellation_hooks, flow.on_crashed_hooks,
    ):  # fmt: skip
        assert end_order in hooks


@pytest.mark.parametrize(
    "hook", [begin_run, end_order, stop_batch_inference_jobs, stop_training_jobs], ids=lambda hook: str(hook.__name__)
)
def test_prefect_hands_a_hook_its_arguments_by_these_names(hook: object) -> None:
    assert list(inspect.signature(hook).parameters) == ["flow", "flow_run", "state"]  # type: ignore[arg-type]


def test_a_deleted_environment_block_is_an_alert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = World.at(tmp_path)
    monkeypatch.setattr("blocks.environment._registered_blocks", lambda name: {})  # the server's answer
    monkeypatch.setattr("flows.options.trusted_environment", lambda name: env)
    monkeypatch.setattr("flows.options.log_visible_text", lambda: None)
    begin_run(FLOWS["retrain"], FlowRun(flow_id=uuid4()), Running())
    assert open_causes(env.outbox(), NOW) == ("local/environment.changed",)

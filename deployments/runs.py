"""Start deployed flows and follow them, as the Prefect UI does: from outside, over the API."""

import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas import FlowRun
from prefect.deployments import run_deployment

from deployments.processes import StackError

WAITING = "Suspended"


def begin(deployment: str, parameters: Mapping[str, Any]) -> UUID:
    """Start a run of `flow/deployment` and return its id; it does not wait."""
    run: Any = run_deployment(name=deployment, parameters=dict(parameters), timeout=0, as_subflow=False)
    return UUID(str(run.id))


def follow(
    run_id: UUID,
    *,
    seconds: float = 600.0,
    until: Callable[[FlowRun], bool] | None = None,
    watch: Callable[[], None] | None = None,
    poll_seconds: float = 0.2,
) -> FlowRun:
    """Wait until the run ended, or is suspended, or `until` says so, and return it.

    `watch` is called at each look, and may raise when waiting on is of no use.

    Raises:
        StackError: it took longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            run = client.read_flow_run(run_id)
            if (until or rests)(run):
                return run
            if watch is not None:
                watch()
            time.sleep(poll_seconds)
    raise StackError(f"flow run {run_id} has not come to rest within {seconds:.0f} s; look at its logs on the UI")


def rests(run: FlowRun) -> bool:
    """Whether the run has ended or waits for a person."""
    return run.state is not None and (run.state.is_final() or run.state.name == WAITING)


def ended(run: FlowRun) -> bool:
    """Whether the run has ended."""
    return run.state is not None and run.state.is_final()

"""Start deployed flows and follow them, as the Prefect UI does: from outside, over the API."""

import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID, uuid4

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import PrefectHTTPStatusError

from blocks.common.errors import Unavailable

SUSPENDED = "Suspended"


def start_run(deployment: str, parameters: Mapping[str, Any], tries: int = 6) -> UUID:
    """Start a run of `flow/deployment` and return its id; it does not wait.

    A Prefect server on SQLite answers 503 to a handful of requests at once. The call is made again under the
    same idempotency key, after 0.5, 1, 2, ... s, so that one run comes of it.
    """
    once = str(uuid4())
    for attempt in range(tries):
        try:
            run: Any = run_deployment(
                name=deployment, parameters=dict(parameters), timeout=0, as_subflow=False, idempotency_key=once
            )
            return UUID(str(run.id))
        except PrefectHTTPStatusError as error:
            if error.response.status_code != httpx.codes.SERVICE_UNAVAILABLE or attempt == tries - 1:
                raise
            time.sleep(0.5 * 2**attempt)
    raise ValueError("tries must be at least 1")


def wait_for_run(
    run_id: UUID,
    *,
    seconds: float = 600.0,
    until: Callable[[FlowRun], bool] | None = None,
    on_poll: Callable[[], None] | None = None,
    poll_seconds: float = 0.4,
) -> FlowRun:
    """Wait until the run ended, or is suspended, or `until` says so, and return it.

    `on_poll` is called at each look, and may raise when waiting on is of no use.

    Raises:
        Unavailable: it took longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            run = client.read_flow_run(run_id)
            if (until or is_ended_or_suspended)(run):
                return run
            if on_poll is not None:
                on_poll()
            time.sleep(poll_seconds)
    raise Unavailable(f"flow run {run_id} has not come to rest within {seconds:.0f} s; look at its logs on the UI")


def is_ended_or_suspended(run: FlowRun) -> bool:
    """Whether the run has ended or waits for a person."""
    return run.state is not None and (run.state.is_final() or run.state.name == SUSPENDED)


def is_ended(run: FlowRun) -> bool:
    """Whether the run has ended."""
    return run.state is not None and run.state.is_final()

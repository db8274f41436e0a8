"""Start deployed flows over the Prefect API, and wait for their runs."""

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
from tasks.shared.rules.run_outcomes import end_text, outcome_of

SUSPENDED = "Suspended"
MAX_START_TRIES = 6


def start_run(deployment: str, parameters: Mapping[str, Any]) -> UUID:
    """Start a run of `flow/deployment` and return its id without waiting for it.

    A Prefect server on SQLite responds 503 to a few simultaneous requests. The call is repeated with the same
    idempotency key after 0.5, 1, 2, ... s, so only one run starts.
    """
    once, attempt = str(uuid4()), 0
    while True:
        try:
            run: Any = run_deployment(
                name=deployment, parameters=dict(parameters), timeout=0, as_subflow=False, idempotency_key=once
            )
            return UUID(str(run.id))
        except PrefectHTTPStatusError as error:
            attempt += 1
            if error.response.status_code != httpx.codes.SERVICE_UNAVAILABLE or attempt == MAX_START_TRIES:
                raise
            time.sleep(0.25 * 2**attempt)


def wait_for_run(
    run_id: UUID,
    *,
    seconds: float = 600.0,
    until: Callable[[FlowRun], bool] | None = None,
    on_poll: Callable[[], None] | None = None,
    poll_seconds: float = 0.4,
) -> FlowRun:
    """Wait until the run has ended or is suspended, or until `until` returns True, and return the run.

    `on_poll` is called at each poll, and may raise to end the wait.

    Raises:
        Unavailable: the wait took longer than `seconds`.
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
    raise Unavailable(f"flow run {run_id} has not ended within {seconds:.0f} s; see its logs on the UI")


def is_ended_or_suspended(run: FlowRun) -> bool:
    """Whether the run has ended or is suspended."""
    return run.state is not None and (run.state.is_final() or run.state.name == SUSPENDED)


def outcome_of_run(run: FlowRun) -> str:
    """Return what a run came to, by its tag: "held"; "" for one that has not ended so."""
    return outcome_of(run.tags, run.state.type.value) if run.state else ""


def end_of_run(run: FlowRun) -> str:
    """Return how a run ended, in one line: its outcome and why."""
    if run.state is None:
        return "the run has no state"
    return end_text(outcome_of_run(run), str(run.state.name), run.state.message or "")


def is_ended(run: FlowRun) -> bool:
    """Whether the run has ended."""
    return run.state is not None and run.state.is_final()

"""The worker of the local stack: a process worker that reports a crash only once, and detects lost flow runs.

It waits for the server, so that all processes of the stack can start at the same time.

A lost run is one whose process or worker died without reporting it. Prefect detects this by missing heartbeats. On a
busy machine events arrive late and out of order, so suspended runs were marked as crashed. Here the worker checks the
processes themselves.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio.abc
import httpx
import psutil
from prefect import Flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas import FlowRun
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_flow_run
from prefect.states import Crashed
from prefect.utilities.processutils import setup_signal_handlers_worker
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from runtime.warm_client import OUTPUT_VARIABLE

START_TIMEOUT = timedelta(seconds=120)
"""Time that a worker gets to start a claimed flow run before the run is reported as crashed."""

CHECK_INTERVAL_SECONDS = 30.0
"""Seconds between two checks.

A run is reported as crashed only when two checks in a row find it lost, so that its own worker can report first.
"""

_log = logging.getLogger("ratchet.worker")


@dataclass(frozen=True)
class MachineProcesses:
    """The processes of this machine.

    Attributes:
        host: the machine's name.
        started_at: the start time of each process, by pid.
        flow_runs: the ids of the flow runs that a process works on, or was started for.
    """

    host: str
    started_at: Mapping[int, datetime]
    flow_runs: frozenset[str]

    @classmethod
    def scan(cls) -> "MachineProcesses":
        """Read all running processes; the environment of other users' processes cannot be read."""
        started_at, flow_runs = dict[int, datetime](), set[str]()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE:
                    started_at[process.pid] = datetime.fromtimestamp(process.create_time(), UTC)
                    flow_runs.add(process.environ().get("PREFECT__FLOW_RUN_ID", ""))
        return cls(socket.gethostname(), started_at, frozenset(flow_runs))


def worker_name() -> str:
    """Return the name of this worker: host and pid, so that it can be found. Prefect adds it to the labels of runs."""
    return f"{socket.gethostname()}:{os.getpid()}"


def lost_reason(run: FlowRun, now: datetime, machine: MachineProcesses) -> str:
    """Return why a flow run is lost, "" when it may still run.

    A run is not lost while its worker process exists; runs of other machines are ignored. `infrastructure_pid` is not
    used: it may belong to an earlier attempt.
    """
    state = run.state
    if state is None:
        return ""
    if state.is_pending() and now - state.timestamp > START_TIMEOUT:
        return f"It did not start within {START_TIMEOUT.seconds} s: its worker has ended. Retry it."
    host, _, pid = str(run.labels.get("prefect.worker.name", "")).rpartition(":")
    if host != machine.host or not pid.isdecimal() or not (state.is_running() or state.name == "Submitting"):
        return ""  # a claimed run that is not yet submitted still has the label of the previous attempt
    worker_started_at = machine.started_at.get(int(pid))
    worker_exists = worker_started_at is not None and worker_started_at < state.timestamp  # else the pid was reused
    if worker_exists or str(run.id) in machine.flow_runs:
        return ""
    return f"Its process has ended, and so has the worker that started it, {host}:{pid}. Retry it."


async def find_lost_runs(client: PrefectClient, pool: str, now: datetime) -> dict[str, tuple[FlowRun, str]]:
    """Return the lost runs of a pool, each with the reason, by the id of the run's state."""
    runs = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING]))
        ),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
    )
    if not runs:
        return {}
    machine = await asyncio.to_thread(MachineProcesses.scan)
    reasons = ((run, lost_reason(run, now, machine)) for run in runs)
    return {str(run.state_id): (run, reason) for run, reason in reasons if reason}


async def crash_lost_runs(client: PrefectClient, pool: str, previously_lost: set[str], now: datetime) -> set[str]:
    """Report runs as crashed that are lost and were `previously_lost` in the same state; return the lost states."""
    lost = await find_lost_runs(client, pool, now)
    for state, (run, reason) in lost.items():
        if state in previously_lost:
            with suppress(ObjectNotFound):  # the run was deleted in the meantime
                await report_crashed(client, run, state, reason)
    return set(lost)


async def report_crashed(client: PrefectClient, run: FlowRun, state: str, reason: str) -> None:
    """Report a run as crashed and run its flow's crash hooks, unless it has left the state with this id."""
    if str((await client.read_flow_run(run.id)).state_id) != state:
        return
    crashed: State = Crashed(message=reason)
    await client.set_flow_run_state(run.id, crashed)
    _log.warning("flow run %s has crashed: %s", run.name, reason)
    await run_crash_hooks(run, crashed)


async def run_crash_hooks(run: FlowRun, crashed: State) -> None:
    """Run the flow's crash hooks, as its worker would have done, for example to stop a paid job.

    A hook that fails, or a flow whose code cannot be loaded, is logged and blocks nothing.
    """
    try:
        flow: Flow[..., Any] = await load_flow_from_flow_run(flow_run=run, use_placeholder_flow=False)
        for hook in flow.on_crashed_hooks or ():
            result = await asyncio.to_thread(hook, flow, run, crashed)
            if result is not None:  # the hook is a coroutine function
                await result
    except Exception:
        _log.exception("the crash hooks of flow run %s failed", run.name)


async def check_lost_runs_until_cancelled(pool: str) -> None:
    """Check for lost runs periodically, until cancelled. An error in one check is logged."""
    previously_lost: set[str] = set()
    async with get_client() as client:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)
            try:
                previously_lost = await crash_lost_runs(client, pool, previously_lost, datetime.now(UTC))
            except httpx.HTTPError as problem:
                _log.warning("the check for lost runs failed: %s", type(problem).__name__)
            except Exception:
                _log.exception("the check for lost runs failed")


def wait_for_server(url: str, seconds: float = 90.0) -> None:
    """Wait until the Prefect API at `url` is healthy. After `seconds` it returns, and the worker reports the error."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", timeout=2.0).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)


class SingleCrashReportWorker(ProcessWorker):
    """Prefect's process worker, but a crash of a flow run is reported only once.

    Prefect 3.8.8 reports a crash twice: when the process ends, and seconds later after looking up the crash hooks. The
    second report overwrites newer states: a run that a user had retried successfully ended as crashed.
    """

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Run the flow run in a process that can outlive this one; hide a crash that the server has recorded."""
        if state := os.environ.get("RATCHET_STATE"):
            configuration.env[OUTPUT_VARIABLE] = str(Path(state) / "logs" / "flow-runs.log")
        before = await self._crash_count(flow_run)
        result = await super().run(flow_run, configuration, task_status)
        after = await self._crash_count(flow_run) if result.status_code != 0 else None
        if before is not None and after is not None and after > before:
            return result.model_copy(update={"status_code": 0})
        return result

    @classmethod
    def __dispatch_key__(cls) -> str:
        """Return a separate key, so that the type `process` stays Prefect's worker for other users."""
        return "ratchet-process"

    async def _crash_count(self, flow_run: FlowRun) -> int | None:
        """Return how often the server recorded a crash of the run; None when it does not respond.

        A duplicate report is better than none.
        """
        with suppress(httpx.HTTPError):
            return sum(state.is_crashed() for state in await self.client.read_flow_run_states(flow_run.id))
        return None


async def run_worker() -> None:
    """Work on the pool `local` until SIGTERM or SIGINT.

    The number of simultaneous runs is limited by the pool, not by the worker: a worker with a limit crashes when a run
    is resumed before the process that suspended it has ended (Prefect 3.8.8).
    """
    setup_signal_handlers_worker(os.getpid(), "the worker", print)
    monitoring = asyncio.create_task(check_lost_runs_until_cancelled("local"))
    try:
        with suppress(asyncio.CancelledError):
            await SingleCrashReportWorker(work_pool_name="local", name=worker_name()).start()
    finally:
        monitoring.cancel()


def main() -> None:
    """Wait for the server, then work."""
    wait_for_server(os.environ["PREFECT_API_URL"])
    asyncio.run(run_worker())


if __name__ == "__main__":
    main()

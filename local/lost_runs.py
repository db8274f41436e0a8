"""Detect flow runs whose process or worker died without reporting it.

Prefect detects this by missing heartbeats. On a busy machine events arrive late and out of order, so suspended runs
were marked as crashed. Here the worker checks the processes themselves.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

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

    Args:
        run: a pending or running flow run.
        now: the time.
        machine: the processes of this machine.
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

"""Flow runs that nobody runs any more: their process, or the worker that had claimed them, is gone, and nobody said so.

Prefect can tell by events (a heartbeat, then silence). Events come late, and in another order, on a machine that is
busy: runs that had waited for a person were then taken for dead. Here the worker looks at what is the case.
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
"""How long a worker may take to begin a flow run that it has claimed, before it is taken for dead."""

CHECK_INTERVAL_SECONDS = 30.0
"""Between two looks: a run is given up when both see the same, so that its own worker speaks first."""

_log = logging.getLogger("ratchet.worker")


@dataclass(frozen=True)
class MachineProcesses:
    """What can be seen on this machine.

    Attributes:
        host: its name.
        started_at: when each of its processes began, by pid.
        flow_runs: the ids of the flow runs that some process works on, or was started for.
    """

    host: str
    started_at: Mapping[int, datetime]
    flow_runs: frozenset[str]

    @classmethod
    def scan(cls) -> "MachineProcesses":
        """Look at every process that has not ended; of those of other users the environment cannot be seen."""
        begun, flow_runs = dict[int, datetime](), set[str]()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE:
                    begun[process.pid] = datetime.fromtimestamp(process.create_time(), UTC)
                    flow_runs.add(process.environ().get("PREFECT__FLOW_RUN_ID", ""))
        return cls(socket.gethostname(), begun, frozenset(flow_runs))


def worker_name() -> str:
    """Return the name under which this process works: it says where to look for it. Prefect labels runs with it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def lost_reason(run: FlowRun, now: datetime, machine: MachineProcesses) -> str:
    """Return why nobody runs this flow run any more, "" when somebody may.

    While its worker is there, that speaks for it; of other machines nothing is known here. Prefect's own note of the
    process (`infrastructure_pid`) is not asked: it may be that of the attempt before.

    Args:
        run: one that is pending or running.
        now: the time.
        machine: what can be seen where this is asked.
    """
    state = run.state
    if state is None:
        return ""
    if state.is_pending() and now - state.timestamp > START_TIMEOUT:
        return f"Nothing began it for {START_TIMEOUT.seconds} s: its worker is gone. Retry it."
    host, _, pid = str(run.labels.get("prefect.worker.name", "")).rpartition(":")
    if host != machine.host or not pid.isdecimal() or not (state.is_running() or state.name == "Submitting"):
        return ""  # a run that is claimed and not submitted bears the label of the attempt before
    begun = machine.started_at.get(int(pid))
    worker_is_there = begun is not None and begun < state.timestamp  # else another process has got its number
    if worker_is_there or str(run.id) in machine.flow_runs:
        return ""
    return f"Its process is gone, and so is the worker that started it, {host}:{pid}. Retry it."


async def find_lost_runs(client: PrefectClient, pool: str, now: datetime) -> dict[str, tuple[FlowRun, str]]:
    """Return the runs of a pool that nobody runs, each with why, by the id of the state that it is in."""
    found = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING]))
        ),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
    )
    if not found:
        return {}
    machine = await asyncio.to_thread(MachineProcesses.scan)
    told = ((run, lost_reason(run, now, machine)) for run in found)
    return {str(run.state_id): (run, why) for run, why in told if why}


async def crash_lost_runs(client: PrefectClient, pool: str, previously_lost: set[str], now: datetime) -> set[str]:
    """Report as crashed what is lost now and was `previously_lost`, in the same state; return what is lost now."""
    lost = await find_lost_runs(client, pool, now)
    for state, (run, why) in lost.items():
        if state in previously_lost:
            with suppress(ObjectNotFound):  # somebody has deleted it meanwhile
                await report_crashed(client, run, state, why)
    return set(lost)


async def report_crashed(client: PrefectClient, run: FlowRun, state: str, why: str) -> None:
    """Report a run as crashed and do what its flow asks for then, unless it has left the state with this id."""
    if str((await client.read_flow_run(run.id)).state_id) != state:
        return
    crashed: State = Crashed(message=why)
    await client.set_flow_run_state(run.id, crashed)
    _log.warning("flow run %s has crashed: %s", run.name, why)
    await run_crash_hooks(run, crashed)


async def run_crash_hooks(run: FlowRun, crashed: State) -> None:
    """Do what the flow asks for when it crashes, as its worker would have done: stop a job that is paid for, say.

    A hook that fails, or a flow whose code is not to be had, is logged and holds up nothing.
    """
    try:
        flow: Flow[..., Any] = await load_flow_from_flow_run(flow_run=run, use_placeholder_flow=False)
        for hook in flow.on_crashed_hooks or ():
            done = await asyncio.to_thread(hook, flow, run, crashed)
            if done is not None:  # it is a coroutine function
                await done
    except Exception:
        _log.exception("what flow run %s leaves behind was not tidied up", run.name)


async def check_lost_runs_until_cancelled(pool: str) -> None:
    """Look again and again, until cancelled. What goes wrong in one look is logged and ends no later one."""
    before: set[str] = set()
    async with get_client() as client:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)
            try:
                before = await crash_lost_runs(client, pool, before, datetime.now(UTC))
            except httpx.HTTPError as problem:
                _log.warning("lost runs were not looked for: %s", type(problem).__name__)
            except Exception:
                _log.exception("lost runs were not looked for")

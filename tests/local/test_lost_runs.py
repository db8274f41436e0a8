"""Lost runs: which flow runs no process runs any more, by the processes of this machine."""

import asyncio
import os
import subprocess
import sys
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import psutil
import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas import FlowRun
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed, Paused, Pending, Running

from local import worker
from local.worker import START_TIMEOUT, MachineProcesses, crash_lost_runs, lost_reason, worker_name
from tests.waiting import wait_for

NOW = datetime(2026, 11, 26, 3, 0, tzinfo=UTC)
HERE = MachineProcesses(
    "here", {1: NOW - timedelta(days=1), 2: NOW - timedelta(seconds=5)}, frozenset({str(UUID(int=9))})
)


def flow_run(state: State, seconds: float, worker: str | None = None, run_id: UUID | None = None) -> FlowRun:
    since = NOW - timedelta(seconds=seconds)
    labels = {"prefect.worker.name": worker} if worker else {}
    return FlowRun(
        id=run_id or uuid4(),
        flow_id=uuid4(),
        name="r",
        state=state.model_copy(update={"timestamp": since}),
        labels=labels,
    )


def submitting() -> State:
    return State(type=StateType.PENDING, name="Submitting")


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (flow_run(Pending(), START_TIMEOUT.seconds + 1), "It did not start within 120 s"),
        (flow_run(Pending(), START_TIMEOUT.seconds - 1), ""),
        (flow_run(Pending(), 60, "here:7"), ""),
        (flow_run(submitting(), 60, "here:7"), "Its process has ended, and so has the worker that started it, here:7"),
        (flow_run(Running(), 60, "here:7"), "Its process has ended, and so has the worker that started it, here:7"),
        (flow_run(Running(), 60, "here:2"), "Its process has ended"),
        (flow_run(Running(), 60, "here:7", UUID(int=9)), ""),
        (flow_run(Running(), 9_000, "here:1"), ""),
        (flow_run(Running(), 9_000, "elsewhere:7"), ""),
        (flow_run(Running(), 9_000, "ProcessWorker 5c6f4e0e"), ""),
        (flow_run(Running(), 9_000, "here:a7"), ""),
        (flow_run(Running(), 9_000), ""),
        (flow_run(Paused(), 900_000, "here:7"), ""),
    ],
    ids=["claimed long ago", "claimed just now", "claimed, its attempt before by a worker that is gone",
         "its worker died before it had a process", "its process and its worker are gone",
         "its worker's number is another process's", "its process is there, its worker not", "its worker is there",
         "on another machine", "by a worker that does not say where", "by something else", "not known by whom",
         "waits for a person"],
)  # fmt: skip
def test_a_run_is_lost_when_nothing_can_end_it_any_more(run: FlowRun, why: str) -> None:
    assert lost_reason(run, NOW, HERE).startswith(why)
    assert bool(lost_reason(run, NOW, HERE)) == bool(why)


def test_a_flow_run_is_seen_on_this_machine_as_long_as_its_process_is_there() -> None:
    run_id = str(uuid4())
    process = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={**os.environ, "PREFECT__FLOW_RUN_ID": run_id}
    )
    try:
        seen = MachineProcesses.scan()
        assert run_id in seen.flow_runs
        assert seen.started_at[process.pid] <= datetime.now(UTC)
    finally:
        process.kill()
    wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    gone = MachineProcesses.scan()
    process.communicate()
    assert (run_id in gone.flow_runs, process.pid in gone.started_at) == (False, False), (
        "killed, though not waited for yet"
    )


def test_a_worker_is_named_after_the_machine_and_the_process_in_which_it_works() -> None:
    host, _, pid = worker_name().rpartition(":")
    assert (host, int(pid)) == (MachineProcesses.scan().host, os.getpid())


class Server:
    """A Prefect server on which a user deletes a run between two calls."""

    def __init__(self, *runs: FlowRun, deleted: FlowRun) -> None:
        self.runs, self.deleted = runs, deleted
        self.crashed = list[FlowRun]()

    async def read_flow_runs(self, **filters: Any) -> tuple[FlowRun, ...]:
        return self.runs

    async def read_flow_run(self, run_id: UUID) -> FlowRun:
        if run_id == self.deleted.id:
            raise ObjectNotFound(Exception("404"))
        return next(run for run in self.runs if run.id == run_id)

    async def set_flow_run_state(self, run_id: UUID, state: State) -> None:
        assert state.is_crashed()
        self.crashed.append(await self.read_flow_run(run_id))


async def gone(flow_run: FlowRun, use_placeholder_flow: bool) -> Any:
    raise FileNotFoundError("flows/gone.py")


def claimed_long_ago(state_id: UUID) -> FlowRun:
    return flow_run(Pending(), START_TIMEOUT.seconds + 60).model_copy(update={"state_id": state_id})


def test_a_run_that_was_deleted_meanwhile_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "load_flow_from_flow_run", gone)
    deleted, lost = claimed_long_ago(UUID(int=1)), claimed_long_ago(UUID(int=2))
    server = Server(deleted, lost, deleted=deleted)
    both = {str(deleted.state_id), str(lost.state_id)}
    assert asyncio.run(crash_lost_runs(cast(PrefectClient, server), "local", set(), NOW)) == both
    assert server.crashed == [], "a run is given up when two looks see the same"
    asyncio.run(crash_lost_runs(cast(PrefectClient, server), "local", both, NOW))
    assert server.crashed == [lost]


def test_looking_goes_on_after_any_error(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    looks = list[int]()

    async def broken(*arguments: Any) -> set[str]:
        looks.append(1)
        raise ValueError("a label that nobody thought of")

    async def three_looks() -> None:
        watching = asyncio.create_task(worker.check_lost_runs_until_cancelled("local"))
        while len(looks) < 3:
            await asyncio.sleep(0.01)
        watching.cancel()

    monkeypatch.setattr(worker, "CHECK_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(worker, "get_client", nullcontext)
    monkeypatch.setattr(worker, "find_lost_runs", broken)
    asyncio.run(asyncio.wait_for(three_looks(), 30))
    assert "a label that nobody thought of" in caplog.text


def test_what_a_flow_does_when_it_crashes_is_done_for_a_run_that_was_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = list[str]()

    async def awaited(flow: Any, flow_run: FlowRun, state: State) -> None:
        told.append(f"awaited, {state.message}")

    def plain(flow: Any, flow_run: FlowRun, state: State) -> None:
        told.append(f"plain, {flow_run.name}")

    def broken(flow: Any, flow_run: FlowRun, state: State) -> None:
        raise OSError("no credentials")

    @flow(on_crashed=[awaited, plain, broken])
    def work() -> None: ...

    async def loaded(flow_run: FlowRun, use_placeholder_flow: bool) -> Any:
        return work

    monkeypatch.setattr(worker, "load_flow_from_flow_run", loaded)
    lost = flow_run(Running(), 60)
    asyncio.run(worker.run_crash_hooks(lost, Crashed(message="Its process has ended")))
    assert told == ["awaited, Its process has ended", "plain, r"]
    assert "the crash hooks of flow run r failed" in caplog.text and "no credentials" in caplog.text


def test_a_flow_whose_code_is_gone_is_said_and_holds_up_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "load_flow_from_flow_run", gone)
    asyncio.run(worker.run_crash_hooks(flow_run(Running(), 60), Crashed()))
    assert "the crash hooks of flow run r failed" in caplog.text and "flows/gone.py" in caplog.text

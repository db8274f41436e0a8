"""Lost runs: a flow run that its worker claimed and never started does not stay pending or keep a slot of the pool."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Pending, Running, Scheduled

from local.stack import Stack
from local.worker import START_TIMEOUT, MachineProcesses, crash_lost_runs, lost_reason
from tests.fixtures.support import run

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def test_a_run_that_nobody_begins_has_crashed_and_says_so(stack: Stack) -> None:
    async def looks() -> list[str]:
        seen, before = list[str](), set[str]()
        async with get_client() as client:
            notify = (await client.read_deployment_by_name("notify/notify")).id
            tomorrow = datetime.now(UTC) + timedelta(days=1)  # so that the worker, which runs here, leaves it alone
            claimed = await client.create_flow_run_from_deployment(notify, state=Scheduled(scheduled_time=tomorrow))
            await client.set_flow_run_state(claimed.id, Pending(), force=True)
            pending = (await client.read_flow_run(claimed.id)).state
            assert pending is not None
            for later in (timedelta(0), START_TIMEOUT + timedelta(seconds=5), START_TIMEOUT + timedelta(seconds=35)):
                before = await crash_lost_runs(client, "local", before, pending.timestamp + later)
                found = (await client.read_flow_run(claimed.id)).state
                seen.append(f"{found.name}: {found.message}" if found and found.message else str(found and found.name))
        return seen

    seen = asyncio.run(looks())
    assert seen[:2] == ["Pending", "Pending"]
    assert seen[2].startswith("Crashed: It did not start within 120 s")


def test_who_ran_a_run_is_known_when_its_process_and_its_worker_are_gone(stack: Stack) -> None:
    ended, machine, now = run("notify/notify"), MachineProcesses.scan(), datetime.now(UTC)
    running = ended.model_copy(update={"state": Running(timestamp=now)})
    assert lost_reason(running, now, machine) == "", "its worker is there, and would say so"
    without = MachineProcesses(machine.host, {}, frozenset())
    assert lost_reason(running, now, without).startswith(
        f"Its process has ended, and so has the worker that started it, {machine.host}:"
    )

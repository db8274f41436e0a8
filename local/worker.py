"""The worker of the embedded stack: a process worker that reports a crash once.

It waits for the server, so that all parts of the stack may start at once.
"""

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path

import anyio.abc
import httpx
from prefect.client.schemas import FlowRun
from prefect.utilities.processutils import setup_signal_handlers_worker
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from local.lost_runs import check_lost_runs_until_cancelled, worker_name
from runtime.warm_client import OUTPUT_VARIABLE


def wait_for_server(url: str, seconds: float = 90.0) -> None:
    """Wait until the Prefect API at `url` is healthy; after `seconds` let the worker itself complain."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", timeout=2.0).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)


class SingleCrashReportWorker(ProcessWorker):
    """Prefect's process worker, which says once that a flow run crashed.

    Prefect 3.8.8 says it twice: when the process has ended, and again when the flow's crash hooks have been
    looked up, seconds later. The second word overwrites whatever has happened since: a person who had pressed
    *Retry* in between saw the run, which worked, end as crashed.
    """

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Run the flow run in a process that outlives this one; a crash that the server knows of is not returned."""
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
        """Return a key of its own: for others, the type `process` stays Prefect's worker."""
        return "ratchet-process"

    async def _crash_count(self, flow_run: FlowRun) -> int | None:
        """Return how often the server has seen the run crash; None when it cannot say (twice is better than never)."""
        with suppress(httpx.HTTPError):
            return sum(state.is_crashed() for state in await self.client.read_flow_run_states(flow_run.id))
        return None


async def run_worker() -> None:
    """Work on the pool `local` until SIGTERM or SIGINT.

    How many runs may go at once is a limit of the pool, not of the worker: a worker with a limit of its own
    dies when a run is resumed while the process that suspended it has not quite ended (Prefect 3.8.8).
    """
    setup_signal_handlers_worker(os.getpid(), "the worker", print)
    watching = asyncio.create_task(check_lost_runs_until_cancelled("local"))
    try:
        with suppress(asyncio.CancelledError):
            await SingleCrashReportWorker(work_pool_name="local", name=worker_name()).start()
    finally:
        watching.cancel()


def main() -> None:
    """Wait for the server, then work."""
    wait_for_server(os.environ["PREFECT_API_URL"])
    asyncio.run(run_worker())


if __name__ == "__main__":
    main()

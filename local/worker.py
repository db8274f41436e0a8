"""The worker of the local stack: a process worker that reports a crash only once.

It waits for the server, so that all processes of the stack can start at the same time.
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

"""The worker of the embedded stack: makes the work pool when it is missing, then runs a process worker.

It waits for the server, so that all parts of the stack may start at once.
"""

import os
import sys
import time

import httpx


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


def main() -> None:
    """Become `prefect worker start` on the pool `local`.

    How many runs may go at once is a limit of the pool, not of the worker: a worker with a limit of its own
    dies when a run is resumed while the process that suspended it has not quite ended (Prefect 3.8.8).
    """
    wait_for_server(os.environ["PREFECT_API_URL"])
    command = ["prefect", "worker", "start", "--pool", "local", "--type", "process"]
    os.execv(sys.executable, [sys.executable, "-m", *command])


if __name__ == "__main__":
    main()

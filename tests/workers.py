"""The worker of a stack, killed and started again."""

import sys
from pathlib import Path
from threading import Lock

import psutil

from local.processes import start
from local.stack import Stack


class Workers:
    """A stack's worker and those that came after it. What they began goes on without them."""

    def __init__(self, stack: Stack, checkout: Path) -> None:
        self._stack, self._checkout, self._lock = stack, checkout, Lock()
        self._begun = [next(psutil.Process(process.pid) for process in stack.processes if process.name == "worker")]

    def replace(self) -> None:
        """Kill the worker as the machine's memory killer would, and start another."""
        with self._lock:
            self._begun[-1].kill()
            self._begun[-1].wait(timeout=60)
            log = self._stack.state / "logs" / f"worker-{len(self._begun)}.log"
            started = start("worker", [sys.executable, "-m", "local.worker"],
                            environment=self._stack.environment(), folder=self._checkout, log=log)  # fmt: skip
            self._begun.append(psutil.Process(started.pid))

    def stop(self) -> None:
        """Stop what came after the stack's own worker, of which the stack knows nothing."""
        for worker in self._begun[1:]:
            if worker.is_running():
                worker.terminate()
                worker.wait(timeout=60)

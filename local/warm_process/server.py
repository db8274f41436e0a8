"""The warm process: it preloads libraries while idle and forks for each requested program.

`python -m local.warm_process.server SOCKET [LIBRARY ...]`

A short flow run spends most of its time importing Prefect, MLflow and Great Expectations. Here they are loaded once.
No module of the project is preloaded, so a run uses the current code of its checkout. Linux only: on other systems the
fork of a process with these libraries is not safe, and the client starts the program itself.
"""

import atexit
import gc
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from local.warm_process.program import FastExit, Job, close_descriptors, run_job

PRELOADED_LIBRARIES = (
    "prefect", "prefect.flow_engine", "prefect.concurrency.sync", "prefect.artifacts", "prefect.blocks.core",
    "pandas", "pyarrow.parquet", "pyarrow.compute", "sqlalchemy.dialects.sqlite", "yaml", "psutil", "duckdb",
    "sklearn.metrics", "mlflow.sklearn", "mlflow.pyfunc", "scipy.stats", "matplotlib.figure",
    "matplotlib.backends.backend_agg", "great_expectations", "great_expectations.validator.validator",
    "evidently", "evidently.presets",
)  # fmt: skip
"""The preloaded libraries, in the order in which flows need them."""

GRACE_SECONDS = 8.0
"""Seconds that programs get to end after SIGTERM; the stack kills the rest after ten."""


@dataclass
class ClientConnection:
    """A client connection. `pid` is 0 until its program has been forked."""

    connection: socket.socket
    pid: int = 0


def serve(address: Path, libraries: tuple[str, ...] = PRELOADED_LIBRARIES) -> Job | None:
    """Serve until SIGTERM, then return None; in each forked child return the job to run.

    The job is returned instead of run here, so that the child has a short stack and no objects of the server. SIGTERM
    is passed on to the programs. Clients get the exit codes of those that end within `GRACE_SECONDS`, so a flow run
    that is suspending itself ends normally and does not count as crashed.
    """
    remaining = list(libraries)
    callers: dict[int, ClientConnection] = {}
    with listening(address) as listener, signal_socket() as (awake, received):
        selector = selectors.DefaultSelector()
        selector.register(listener, selectors.EVENT_READ, "listener")
        selector.register(awake, selectors.EVENT_READ, "signal")
        deadline = 0.0
        while not deadline or (any(caller.pid for caller in callers.values()) and time.monotonic() < deadline):
            if signal.SIGTERM in received and not deadline:
                deadline = terminate_programs(callers)
                selector.unregister(listener)
                continue
            events = selector.select(0.1 if deadline else 0 if remaining else None)
            if not events and remaining and not deadline:
                preload_library(remaining.pop(0))
            for key, _ in events:
                if key.data == "listener":
                    connection, _ = listener.accept()
                    caller = callers[connection.fileno()] = ClientConnection(connection)
                    selector.register(connection, selectors.EVENT_READ, caller)
                elif key.data == "signal":
                    awake.recv(64)
                    report_ended(callers, selector)
                elif key.data.pid == 0 and (job := receive_job(key.data.connection)):
                    gc.freeze()  # so that a collection in the child does not touch, and so copy, the loaded objects
                    if pid := os.fork():  # noqa: TID251 - `preload_library` ensures that no thread runs here
                        key.data.pid = pid
                        close_descriptors(job.streams)
                        send_message(key.data.connection, {"pid": pid})
                    else:
                        selector.close()
                        for other in callers.values():
                            other.connection.close()
                        return job
                else:  # the client has gone, or sent no valid job
                    signal_program(key.data, signal.SIGKILL)
                    close_client(key.data, callers, selector)
    return None


def terminate_programs(callers: Mapping[int, ClientConnection]) -> float:
    """Send SIGTERM to every program; return the deadline of the wait for them (time.monotonic())."""
    for caller in callers.values():
        signal_program(caller, signal.SIGTERM)
    return time.monotonic() + GRACE_SECONDS


def signal_program(caller: ClientConnection, number: signal.Signals) -> None:
    """Send a signal to the caller's program, if it runs."""
    with suppress(ProcessLookupError):
        if caller.pid:
            os.kill(caller.pid, number)


def preload_library(library: str) -> None:
    """Import one library, which must not start threads. Import errors are left to the program that needs it."""
    with suppress(Exception), warnings.catch_warnings(), pyspark_hidden():
        warnings.simplefilter("ignore")
        import_module(library)
    if threading.active_count() > 1:
        names = [thread.name for thread in threading.enumerate()]
        problem = f"{library} starts threads, which a fork would lose: {names}"
        raise SystemExit(f"{problem}; remove it from PRELOADED_LIBRARIES")


@contextmanager
def pyspark_hidden() -> Iterator[None]:
    """Hide pyspark if it is installed: Great Expectations would import it, which takes seconds, and not use it."""
    loaded = "pyspark" in sys.modules
    if not loaded:
        sys.modules["pyspark"] = cast(ModuleType, None)  # so that importing it raises ImportError
    try:
        yield
    finally:
        if not loaded:
            del sys.modules["pyspark"]


@contextmanager
def listening(address: Path) -> Iterator[socket.socket]:
    """Listen at `address`, which only this user can reach, and remove it at the end."""
    owner = os.getpid()
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        umask = os.umask(0o177)
        listener.bind(str(address))
        os.umask(umask)
        listener.listen(64)
        try:
            yield listener
        finally:
            if os.getpid() == owner:
                address.unlink(missing_ok=True)


@contextmanager
def signal_socket() -> Iterator[tuple[socket.socket, set[int]]]:
    """Yield a socket that becomes readable on SIGTERM and SIGCHLD, and the set of received signals."""
    received: set[int] = set()
    reading, writing = socket.socketpair()
    for end in (reading, writing):
        end.setblocking(False)
    handlers = {
        number: signal.signal(number, lambda caught, _: received.add(caught))
        for number in (signal.SIGTERM, signal.SIGCHLD)
    }
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of the terminal
    signal.set_wakeup_fd(writing.fileno())
    try:
        yield reading, received
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in {**handlers, signal.SIGINT: interrupt}.items():
            signal.signal(number, handler)
        reading.close()
        writing.close()


def receive_job(connection: socket.socket) -> Job | None:
    """Read the job that a client sends; None when it has gone or sends something else."""
    connection.settimeout(5.0)
    streams: list[int] = []
    try:
        _, streams, _, _ = socket.recv_fds(connection, 1, 3)
        with connection.makefile("rb") as content:
            stored: dict[str, Any] = json.loads(content.readline())
        standard_input, output, error = streams
        return Job(**stored, streams=(standard_input, output, error))
    except (OSError, ValueError, TypeError):
        close_descriptors(tuple(streams))
        return None


def report_ended(callers: dict[int, ClientConnection], selector: selectors.BaseSelector) -> None:
    """Collect the programs that have ended and send their exit codes to their clients."""
    by_pid = {caller.pid: caller for caller in callers.values() if caller.pid}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if caller := by_pid.get(pid):
            send_message(caller.connection, {"code": os.waitstatus_to_exitcode(status)})
            close_client(caller, callers, selector)


def send_message(connection: socket.socket, message: dict[str, int]) -> None:
    """Send one line of JSON. A client that has gone is detected by its closed connection."""
    with suppress(OSError):
        connection.sendall(json.dumps(message).encode() + b"\n")


def close_client(
    caller: ClientConnection, callers: dict[int, ClientConnection], selector: selectors.BaseSelector
) -> None:
    """Close a client's connection."""
    callers.pop(caller.connection.fileno(), None)
    selector.unregister(caller.connection)
    caller.connection.close()


def main(arguments: list[str]) -> None:
    """Run the server; in a forked child run its job."""
    last = FastExit()
    atexit.register(last)  # before any library registers a function
    gc.disable()  # a collection would write to pages that children share: see gc.freeze in Python's manual
    job = serve(Path(arguments[0]), tuple(arguments[1:]) or PRELOADED_LIBRARIES)
    if job is not None:
        gc.enable()
        with last.recording_exit_code():
            run_job(job)


if __name__ == "__main__":
    main(sys.argv[1:])

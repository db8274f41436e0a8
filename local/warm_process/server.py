"""The warm process: loads libraries while nothing is asked of it, and forks for each program that is.

`python -m local.warm_process.server SOCKET [LIBRARY ...]`

A flow run of a few seconds spends most of them importing Prefect, MLflow and Great Expectations. Here they are
loaded once. Nothing of the project is among them, so a run has the code as it is in its checkout at that moment.
Linux only: elsewhere a fork of a process with so many libraries is not safe, and the client runs cold.
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
"""What is loaded, in the order in which flows need it."""

GRACE_SECONDS = 8.0
"""How long programs may take to end at SIGTERM; the stack kills what is left after ten."""


@dataclass
class ClientConnection:
    """A connection: of a client whose program has not been told yet (`pid` 0), or runs."""

    connection: socket.socket
    pid: int = 0


def serve(address: Path, libraries: tuple[str, ...] = PRELOADED_LIBRARIES) -> Job | None:
    """Serve until SIGTERM, then return None; in each forked child return the job that it is to run.

    Returning, rather than running the job here, leaves the child with a short stack and nothing of the server's.
    At SIGTERM the programs are told, and those that end within `GRACE_SECONDS` have their exit code told to their
    clients: a flow run that is about to wait for a person ends well then, and is not taken for crashed.
    """
    left = list(libraries)
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
            events = selector.select(0.1 if deadline else 0 if left else None)
            if not events and left and not deadline:
                preload_library(left.pop(0))
            for key, _ in events:
                if key.data == "listener":
                    connection, _ = listener.accept()
                    caller = callers[connection.fileno()] = ClientConnection(connection)
                    selector.register(connection, selectors.EVENT_READ, caller)
                elif key.data == "signal":
                    awake.recv(64)
                    report_ended(callers, selector)
                elif key.data.pid == 0 and (job := receive_job(key.data.connection)):
                    gc.freeze()  # so that no collection of the child looks at, and thereby copies, what is loaded here
                    if pid := os.fork():  # noqa: TID251 - `load` sees to it that no thread runs here
                        key.data.pid = pid
                        close_descriptors(job.streams)
                        send_message(key.data.connection, {"pid": pid})
                    else:
                        selector.close()
                        for other in callers.values():
                            other.connection.close()
                        return job
                else:  # the client is gone, or never said what it wanted
                    signal_program(key.data, signal.SIGKILL)
                    close_client(key.data, callers, selector)
    return None


def terminate_programs(callers: Mapping[int, ClientConnection]) -> float:
    """Ask every program to end; return until when they are waited for, as time.monotonic() tells it."""
    for caller in callers.values():
        signal_program(caller, signal.SIGTERM)
    return time.monotonic() + GRACE_SECONDS


def signal_program(caller: ClientConnection, number: signal.Signals) -> None:
    """Send a signal to the caller's program, if it has one that runs."""
    with suppress(ProcessLookupError):
        if caller.pid:
            os.kill(caller.pid, number)


def preload_library(library: str) -> None:
    """Import one library; a broken one is left to the program that needs it. No thread may be left behind."""
    with suppress(Exception), warnings.catch_warnings(), pyspark_hidden():
        warnings.simplefilter("ignore")
        import_module(library)
    if threading.active_count() > 1:
        names = [thread.name for thread in threading.enumerate()]
        raise SystemExit(f"{library} starts threads, which a fork would lose: {names}; take it off LIBRARIES")


@contextmanager
def pyspark_hidden() -> Iterator[None]:
    """Hide pyspark, where it is installed: Great Expectations would import it, for seconds, and use none of it."""
    there = "pyspark" in sys.modules
    if not there:
        sys.modules["pyspark"] = cast(ModuleType, None)  # so an import of it is an ImportError
    try:
        yield
    finally:
        if not there:
            del sys.modules["pyspark"]


@contextmanager
def listening(address: Path) -> Iterator[socket.socket]:
    """Listen at `address`, which this user alone can reach, and remove it in the end."""
    owner = os.getpid()
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.umask(0o177)
        listener.bind(str(address))
        os.umask(before)
        listener.listen(64)
        try:
            yield listener
        finally:
            if os.getpid() == owner:
                address.unlink(missing_ok=True)


@contextmanager
def signal_socket() -> Iterator[tuple[socket.socket, set[int]]]:
    """Give a socket that becomes readable on SIGTERM and SIGCHLD, and the set of signals seen; restore in the end."""
    received: set[int] = set()
    reading, writing = socket.socketpair()
    for end in (reading, writing):
        end.setblocking(False)
    before = {
        number: signal.signal(number, lambda seen, _: received.add(seen)) for number in (signal.SIGTERM, signal.SIGCHLD)
    }
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the stack stops us
    signal.set_wakeup_fd(writing.fileno())
    try:
        yield reading, received
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in {**before, signal.SIGINT: interrupt}.items():
            signal.signal(number, handler)
        reading.close()
        writing.close()


def receive_job(connection: socket.socket) -> Job | None:
    """Read the job that a client hands over, or None when it has gone or sends something else."""
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
    """Collect the programs that have ended and tell their clients how."""
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
    """Send one line of JSON; a client that has gone is noticed by its closed connection."""
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
    """Serve; each child leaves the server behind and runs its job."""
    last = FastExit()
    atexit.register(last)  # before any library registers something
    gc.disable()  # a collection would leave holes on pages that children share: see gc.freeze in Python's manual
    job = serve(Path(arguments[0]), tuple(arguments[1:]) or PRELOADED_LIBRARIES)
    if job is not None:
        gc.enable()
        with last.recording_exit_code():
            run_job(job)


if __name__ == "__main__":
    main(sys.argv[1:])

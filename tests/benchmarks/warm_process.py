"""Start-up time of programs, and limits: cold, from the warm process, and from the standard library's fork server.

`python -m tests.benchmarks.warm_process` prints a table; Linux, about two minutes on 2 cores.
"""

import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path

import psutil

from local.warm_process.server import PRELOADED_LIBRARIES
from runtime import warm_client as client
from runtime.warm_client import SOCKET_VARIABLE
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
APART = multiprocessing.get_context("forkserver")  # noqa: TID251 - this is what is measured
STARTS, LOADED_SECONDS = 20, 60


def nothing() -> None:
    """Do nothing."""


def leave_word(path: Path) -> None:
    """Register a function that writes a file when Python ends."""
    import atexit

    atexit.register(path.write_text, "called")


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds of the work."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def memory(process: psutil.Process) -> str:
    """Return the proportional size (PSS) of a process and its children, in MB."""
    family = [process, *process.children(recursive=True)]
    return f"{sum(each.memory_full_info().pss for each in family) / 1e6:.0f} MB in {len(family)}"


def starts(start: Callable[[], object]) -> str:
    """Return the median and range of several starts, in seconds."""
    taken = [seconds(start) for _ in range(STARTS)]
    return f"{statistics.median(taken):.2f} ({min(taken):.2f} to {max(taken):.2f})"


def cold() -> None:
    """Start a program that imports what most flows import."""
    libraries = "import prefect.flow_engine, pandas, mlflow.sklearn, great_expectations"
    taken = [seconds(lambda: subprocess.run([sys.executable, "-c", libraries], check=True)) for _ in range(3)]
    print(f"| cold, imports of Prefect, MLflow, Great Expectations | – | {statistics.median(taken):.2f} | – |")


def warm(folder: Path) -> None:
    """Start programs from Ratchet's warm process."""
    address = folder / "socket"
    (folder / "program.py").write_text("")
    server = psutil.Popen([sys.executable, "-m", "local.warm_process.server", str(address)], cwd=ROOT)
    command = [sys.executable, "-I", "-S", client.__file__, "program"]
    variables = {**os.environ, SOCKET_VARIABLE: str(address)}

    def start() -> None:
        subprocess.run(command, cwd=folder, env=variables, check=True)

    wait_for(address.exists)
    time.sleep(1)
    first = seconds(start)
    time.sleep(LOADED_SECONDS)
    print(f"| our warm process | {first:.1f} | {starts(start)} | {memory(server)} |")
    server.terminate()
    server.wait()


def standard(folder: Path) -> None:
    """Start processes from the standard library's fork server; then test what ends it."""

    def start() -> int | None:
        process = APART.Process(target=nothing)
        process.start()
        process.join()
        return process.exitcode

    (folder / "hides.py").write_text("import sys\nsys.modules['pyspark'] = None\n")
    (folder / "leaves.py").write_text("raise RuntimeError('not today')\n")
    os.environ["PYTHONPATH"] = str(folder)
    APART.set_forkserver_preload(["hides", *PRELOADED_LIBRARIES])
    forkserver.ensure_running()
    time.sleep(1)
    first = seconds(start)
    print(
        f"| `multiprocessing`'s fork server, from a Python that runs | {first:.1f} | {starts(start)} | {memory(psutil.Process())} |\n"
    )

    word = folder / "word"
    process = APART.Process(target=leave_word, args=(word,))
    process.start()
    process.join()
    print(f"- the fork server's process calls exit functions: {word.exists()}")
    server = fork_server()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(forkserver._forkserver._forkserver_address)
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
    print(f"- it outlives a client that sends something else: {not ends(server)}")
    forkserver._forkserver._stop()
    APART.set_forkserver_preload(["leaves"])
    print(f"- it outlives a library that raises other than ImportError: {served(start)}")
    forkserver._forkserver._stop()
    APART.set_forkserver_preload([])
    process = APART.Process(target=time.sleep, args=(3,))
    process.start()
    fork_server().terminate()
    process.join()
    print(f"- a program that ends well after SIGTERM of the server is told so: {process.exitcode == 0}")


def fork_server() -> psutil.Process:
    """Return the fork server's process."""
    return psutil.Process(forkserver._forkserver._forkserver_pid)


def ends(process: psutil.Process) -> bool:
    """Return whether it ends within 20 s: freeing the loaded modules takes some seconds."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def served(start: Callable[[], int | None]) -> bool:
    """Return whether a process can be started and ends without an error."""
    with suppress(EOFError, OSError):
        return start() == 0
    return False


def main() -> None:
    """Print the table."""
    print("| start | first, 1 s after its server, s | later, s | memory |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        cold()
        warm(Path(folder))
        standard(Path(folder))


if __name__ == "__main__":
    main()

"""What a fork of the warm process does: it becomes the program that was asked for, and ends as that would end."""

import atexit
import io
import os
import runpy
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn


@dataclass(frozen=True)
class Job:
    """A program to run: module and arguments, environment, working directory, standard streams, the client's pid."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    streams: tuple[int, ...]
    client: int


def close_all(descriptors: tuple[int, ...]) -> None:
    """Close file descriptors of this process."""
    for descriptor in descriptors:
        os.close(descriptor)


def run(job: Job) -> None:
    """Become the job's program: its session, streams, folder and environment, then `python -m` as Python does it."""
    os.setsid()
    Path("/proc/self/comm").write_text(f"for {job.client}")  # how `ps` tells whose program it is
    for target, stream in enumerate(job.streams):
        os.dup2(stream, target)
    close_all(job.streams)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    os.chdir(job.folder)
    os.environ.clear()
    os.environ.update(job.environment)
    sys.path[:] = [job.folder if entry in ("", str(Path(__file__).parents[2])) else entry for entry in sys.path]
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()  # they were read from the server's own environment
    if "numpy" in sys.modules:
        import numpy as np

        np.random.seed()  # or all programs would draw the same numbers
    for module in [name for name in sys.modules if name.split(".")[0] == "deployments"]:
        del sys.modules[module]  # the program's checkout may be another one
    sys.argv = list(job.arguments)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*found in sys.modules", category=RuntimeWarning)
        runpy.run_module(job.arguments[0], run_name="__main__", alter_sys=True)


def leave(work: Callable[[], None]) -> NoReturn:
    """Do the work and end the process with the exit code that Python gives, without taking its objects apart.

    To take apart what was loaded before the fork costs 2 s of a core, by which nobody gains anything. What counts
    at a program's end is done in Python's order (`Py_FinalizeEx`): threads are waited for, exit functions called
    and streams flushed. Python's own forked processes (`multiprocessing`) end in this way, too.
    """
    code = 0
    try:
        work()
    except SystemExit as asked:
        if isinstance(asked.code, int):
            code = asked.code
        elif asked.code is not None:
            code = 1
            print(asked.code, file=sys.stderr)
    except KeyboardInterrupt:
        code = -signal.SIGINT
        sys.excepthook(*sys.exc_info())
    except BaseException:
        code = 1
        sys.excepthook(*sys.exc_info())
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
            stream.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)

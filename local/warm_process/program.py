"""Code that runs in the forked child: set up streams and environment, run the module, exit with its exit code."""

import io
import os
import runpy
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """A program to run: module and arguments, environment, working directory, standard streams, the client's pid."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    streams: tuple[int, ...]
    client_pid: int


def close_descriptors(descriptors: tuple[int, ...]) -> None:
    """Close file descriptors of this process."""
    for descriptor in descriptors:
        os.close(descriptor)


def run_job(job: Job) -> None:
    """Set up the job's session, streams, folder and environment, then run its module as `python -m` does."""
    os.setsid()
    Path("/proc/self/comm").write_text(f"for {job.client_pid}")  # so that `ps` shows the client's pid
    for target, stream in enumerate(job.streams):
        os.dup2(stream, target)
    close_descriptors(job.streams)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    os.chdir(job.folder)
    os.environ.clear()
    os.environ.update(job.environment)
    sys.path[:] = [job.folder if entry in ("", str(Path(__file__).parents[2])) else entry for entry in sys.path]
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()  # the settings were read from the warm process's environment
    if "numpy" in sys.modules:
        import numpy as np

        np.random.seed()  # else all programs would draw the same random numbers
    for module in [name for name in sys.modules if name.split(".")[0] in ("local", "runtime")]:
        del sys.modules[module]  # the program may run from another checkout
    sys.argv = list(job.arguments)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*found in sys.modules", category=RuntimeWarning)
        runpy.run_module(job.arguments[0], run_name="__main__", alter_sys=True)


@dataclass
class FastExit:
    """Last atexit function of a forked program: it exits without tearing down the preloaded libraries.

    The teardown would take 2 s of CPU time. This function is registered before all others, so it is called after them,
    and after Python has waited for threads (`Py_FinalizeEx`).

    Attributes:
        code: the exit code of the program; None in the warm process itself, which Python ends normally.
    """

    code: int | None = None

    @contextmanager
    def recording_exit_code(self) -> Iterator[None]:
        """Record the exit code with which the block ends. Ctrl-C, which ends it by a signal, is left to Python."""
        try:
            yield
        except SystemExit as system_exit:
            code = system_exit.code
            self.code = code if isinstance(code, int) else int(code is not None)
            raise
        except Exception:
            self.code = 1
            raise
        self.code = 0

    def __call__(self) -> None:
        """Flush the standard streams and end the process with the recorded code, if there is one."""
        if self.code is None:
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # the reader has gone, or the stream is closed
                stream.flush()
        os._exit(self.code & 0xFF)

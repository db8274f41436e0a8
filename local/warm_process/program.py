"""What a fork of the warm process does: it becomes the program that was asked for, and ends as that would end."""

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
    """Become the job's program: its session, streams, folder and environment, then `python -m` as Python does it."""
    os.setsid()
    Path("/proc/self/comm").write_text(f"for {job.client_pid}")  # how `ps` tells whose program it is
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

        refresh_global_settings_context()  # they were read from the server's own environment
    if "numpy" in sys.modules:
        import numpy as np

        np.random.seed()  # or all programs would draw the same numbers
    for module in [name for name in sys.modules if name.split(".")[0] in ("local", "runtime")]:
        del sys.modules[module]  # the program's checkout may be another one
    sys.argv = list(job.arguments)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*found in sys.modules", category=RuntimeWarning)
        runpy.run_module(job.arguments[0], run_name="__main__", alter_sys=True)


@dataclass
class FastExit:
    """The last exit function of a forked program: it ends the process, so that nothing is taken apart.

    To take apart what was loaded before the fork costs 2 s of a core, by which nobody gains anything. Registered
    before all others it is called after them, when Python has waited for threads, too (`Py_FinalizeEx`).

    Attributes:
        code: the exit code that Python gives; None where Python shall end the process itself, as the warm one's.
    """

    code: int | None = None

    @contextmanager
    def recording_exit_code(self) -> Iterator[None]:
        """Note with what code the block ends the program. Ctrl-C, which ends it by a signal, is left to Python."""
        try:
            yield
        except SystemExit as asked:
            self.code = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
            raise
        except Exception:
            self.code = 1
            raise
        self.code = 0

    def __call__(self) -> None:
        """Flush what was printed and end the process with the code, if there is one."""
        if self.code is None:
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
                stream.flush()
        os._exit(self.code & 0xFF)

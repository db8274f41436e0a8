"""Finds, measures and ends the processes of one job on this machine."""

import contextlib
import time
from pathlib import Path

import psutil

JOB_FOLDER_VARIABLE = "SAGEMAKER_BASE_DIR"
"""Variable in the environment of a job's processes; its value is the job's folder."""


def is_alive(pid: int, created: float) -> bool:
    """Return whether the process still runs; `created` distinguishes it from a later process with the same pid."""
    try:
        process = psutil.Process(pid)
        return process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def creation_time(pid: int) -> float:
    """Return when the process started (seconds since 1970, as psutil counts), or 0.0 if it has ended."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def processes_of_job(folder: Path) -> list[psutil.Process]:
    """Return the running processes of the job in `folder`, including children that left its session."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(JOB_FOLDER_VARIABLE) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
    return processes


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process and all its descendants, in MB of 2**20 bytes; 0 if it has ended."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total / 2**20


def end_processes(folder: Path, grace_seconds: float) -> None:
    """End every process of the job in `folder`: SIGTERM first, SIGKILL after `grace_seconds`, until none is left."""
    for process in processes_of_job(folder):
        with contextlib.suppress(psutil.Error):
            process.terminate()
    deadline = time.monotonic() + grace_seconds
    while processes_of_job(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    while running := processes_of_job(folder):  # a process may start another one before it is killed
        for process in running:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(running, timeout=1)

"""The processes of one job on this machine: how they are found, measured and ended."""

import contextlib
import time
from pathlib import Path

import psutil

JOB_FOLDER_VARIABLE = "SAGEMAKER_BASE_DIR"
"""The variable by which a process is known as a job's, wherever it moved to: its value is the job's folder."""


def is_alive(pid: int, created: float) -> bool:
    """Say whether the process of that number still runs; `created` tells it from a later one of that number."""
    try:
        process = psutil.Process(pid)
        return process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def creation_time(pid: int) -> float:
    """Return when the process started (seconds since 1970, as psutil counts), or 0.0 when it is gone."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def processes_of_job(folder: Path) -> list[psutil.Process]:
    """Return the living processes that belong to the job in `folder`, children that left its session included."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(JOB_FOLDER_VARIABLE) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def resident_mb(pid: int) -> float:
    """Return the memory that a process and all its descendants hold, in MB of 2**20 bytes; 0 when it is gone."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total / 2**20


def end_processes(folder: Path, grace_seconds: float) -> None:
    """End every process of the job in `folder`: asked first, killed after `grace_seconds`, until none is left."""
    for process in processes_of_job(folder):
        with contextlib.suppress(psutil.Error):
            process.terminate()
    deadline = time.monotonic() + grace_seconds
    while processes_of_job(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    while left := processes_of_job(folder):  # a process may start another between the look and the kill
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=1)

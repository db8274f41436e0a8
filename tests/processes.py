"""Processes of tests: which of them run, and how to start some that do not inherit this process's threads."""

import multiprocessing
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import cloudpickle
import psutil

FORKSERVER = multiprocessing.get_context("forkserver")  # noqa: TID251 - the context that all tests must use
"""The source of a test's processes. Forks of this process could wait for ever for a lock of one of its threads.

A fork does not copy threads, but it copies the locks that they hold; pytest's process has the threads of every server
that it ever ran.
"""
FORKSERVER.set_forkserver_preload(
    ["blocks.lake.local", "tests.fixtures.lakes", "blocks.database.ledger", "tests.fixtures.hooks"]
)


def is_running(pid: int) -> bool:
    """Return whether the process of this number runs; one that has ended but was not reaped does not run."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def children(parent: psutil.Process) -> set[int]:
    """Return the numbers of the processes that `parent` started and that run."""
    return {child.pid for child in parent.children() if is_running(child.pid)}


def messages_until_killed(work: Callable[..., object], *arguments: object, words: int, seconds: float) -> list[Any]:
    """Run `work(*arguments, say)` in a process, kill it so many seconds after its first messages, and return them all.

    A message given to `say` has left the process when `say` returns. A process that ends by itself fails the test,
    because nothing was killed.
    """
    reader, writer = FORKSERVER.Pipe(duplex=False)
    process = FORKSERVER.Process(target=_speak, args=(work, arguments, writer))
    process.start()
    writer.close()
    with reader:
        try:
            said = [reader.recv() for _ in range(words)]
            time.sleep(seconds)
        finally:
            process.kill()
            process.join()
        assert process.exitcode == -signal.SIGKILL, f"the process ended before it was killed: {process.exitcode}"
        with suppress(EOFError):
            while True:
                said.append(reader.recv())
    return said


def in_processes(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run `work` in this many processes, released at once, and return what each returned or raised."""
    start, results = FORKSERVER.Barrier(count), FORKSERVER.Queue()
    parts = [cloudpickle.dumps((work, number)) for number in range(count)]
    processes = [FORKSERVER.Process(target=_run_part, args=(part, start, results)) for part in parts]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    return found


def _run_part(part: bytes, start: Any, results: Any) -> None:
    work, number = cloudpickle.loads(part)
    start.wait(100)
    try:
        results.put(work(number))
    except Exception as error:
        results.put(repr(error))


def _speak(work: Callable[..., object], arguments: tuple[object, ...], writer: Any) -> None:
    work(*arguments, writer.send)

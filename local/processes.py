"""Start, find and stop the processes of the embedded stack, and nobody else's."""

import fcntl
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from blocks.common.errors import TerminalError


class StackError(TerminalError):
    """The stack cannot do what was asked; the message says what a person can do about it."""


@dataclass(frozen=True)
class ManagedProcess:
    """A process that we started. `created` (Unix time) tells it from a later one with the same pid."""

    name: str
    pid: int
    created: float
    log: str

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._found() is not None

    def _found(self) -> psutil.Process | None:
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.created) < 1.0
            return found if same and found.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def stop(self, grace_seconds: float = 10.0) -> None:
        """End it and everything it started: first asked, then killed. No error when it is gone.

        It leads a session of its own, by which what its children left behind is found, too.
        """
        family = self._family()
        for send in (psutil.Process.terminate, psutil.Process.kill):
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    send(member)
            deadline = time.monotonic() + grace_seconds
            while (family := [member for member in family if _is_running(member)]) and time.monotonic() < deadline:
                time.sleep(0.05)
            if not family:
                return

    def _family(self) -> list[psutil.Process]:
        found = self._found()
        with suppress(psutil.NoSuchProcess):
            if found is None and _is_running(psutil.Process(self.pid)):
                return []  # the pid is somebody else's by now, and so is the session of that number
        below = [found, *found.children(recursive=True)] if found else []
        known = {member.pid for member in below}
        return below + [member for member in psutil.process_iter() if member.pid not in known and self._leads(member)]

    def _leads(self, member: psutil.Process) -> bool:
        try:
            return os.getsid(member.pid) == self.pid and member.create_time() >= self.created - 1.0
        except (OSError, psutil.Error):
            return False


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start_process(
    name: str,
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
    inherit: bool = True,
) -> ManagedProcess:
    """Start a process in a session of its own, so that Ctrl-C reaches us and not it; output goes to `log`.

    Without `inherit` its environment holds `environment` and nothing else.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        started = subprocess.Popen(
            list(command),
            cwd=folder,
            env={**(os.environ if inherit else {}), **environment},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return ManagedProcess(name, started.pid, psutil.Process(started.pid).create_time(), str(log))


def wait_until_ready(process: ManagedProcess, url: str, seconds: float = 90.0) -> None:
    """Wait until `url` answers 200.

    Raises:
        StackError: the process ended, or did not answer in time; the message carries its last words.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=2.0).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        if not process.alive():
            raise StackError(f"{process.name} ended while starting. Its last words:\n{last_lines(process.log)}")
        time.sleep(0.1)
    raise StackError(
        f"{process.name} did not answer at {url} within {seconds:.0f} s. Its last words:\n{last_lines(process.log)}"
    )


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Do not let a second Ctrl-C cut short what a first one began: stopping leaves nothing behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def last_lines(log: str, lines: int = 15) -> str:
    """Return the last lines of a log file."""
    return "\n".join(Path(log).read_text(errors="replace").splitlines()[-lines:])


def free_port(preferred: int) -> int:
    """Return `preferred` when nothing listens there on this machine, else a port that the system picks."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StackError("this machine has no free port left; close some programs and try again")


@contextmanager
def start_lock(say: Callable[[str], None] = print) -> Iterator[None]:
    """Hold up other starts of this user on this machine, from the choice of free ports until programs listen there.

    Two stacks that start in the same second would choose the same ports otherwise, and each take the other's server
    for its own. Where the lock's file cannot be had, nobody is held up.
    """
    path = Path(tempfile.gettempdir()) / f"ratchet-{os.getuid()}.lock"
    try:
        lock = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w")
    except OSError:  # another user made it
        lock = None
    with lock or nullcontext():
        if lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another stack starts on this machine just now; waiting until it has its ports …")
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield

"""Start, find and stop the processes of the local stack, and only those."""

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

import psutil

from blocks.common.errors import TerminalError


class StackError(TerminalError):
    """The command cannot be carried out; the message says what the user can do."""


@dataclass(frozen=True)
class ManagedProcess:
    """A started process. `created` (Unix time) distinguishes it from a later process with the same pid."""

    name: str
    pid: int
    created: float
    log: str

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process() is not None

    def _process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def stop(self, grace_seconds: float = 10.0) -> None:
        """Terminate the process and everything it started, then kill what is left. No error when it has ended.

        It leads its own session, so processes that its children left behind are found as well.
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
        leader = self._process()
        with suppress(psutil.NoSuchProcess):
            if leader is None and _is_running(psutil.Process(self.pid)):
                return []  # the pid now belongs to another process, and so does the session with that number
        descendants = [leader, *leader.children(recursive=True)] if leader else []
        known = {member.pid for member in descendants}
        others = (member for member in psutil.process_iter() if member.pid not in known)
        return descendants + [member for member in others if self._leads(member)]

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
    """Start a process in its own session, so that Ctrl-C does not reach it; its output goes to `log`.

    Without `inherit` its environment contains only `environment`.
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
    """Wait until `url` responds with status 200.

    Raises:
        StackError: the process ended, or did not respond in time; the message contains its last log lines.
    """
    import httpx  # takes 0.3 s, which commands that start nothing do not need

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=2.0).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        if not process.alive():
            raise StackError(f"{process.name} ended while starting. Its last log lines:\n{last_lines(process.log)}")
        time.sleep(0.1)
    problem = f"{process.name} did not respond at {url} within {seconds:.0f} s"
    raise StackError(f"{problem}. Its last log lines:\n{last_lines(process.log)}")


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ignore further Ctrl-C while the first one is handled, so that the cleanup completes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def last_lines(log: str, lines: int = 15) -> str:
    """Return the last lines of a log file."""
    return "\n".join(Path(log).read_text(errors="replace").splitlines()[-lines:])


def free_port(preferred: int) -> int:
    """Return `preferred` if nothing listens there on this machine, else a port that the system chooses."""
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
    """Serialize starts of this user on this machine, from the choice of free ports until programs listen there.

    Otherwise two stacks that start together would choose the same ports, and each would mistake the other's server for
    its own. If the lock file cannot be opened, no lock is taken.
    """
    path = Path(tempfile.gettempdir()) / f"ratchet-{os.getuid()}.lock"
    try:
        lock = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w")
    except OSError:  # another user has created it
        lock = None
    with lock or nullcontext():
        if lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another stack is starting on this machine; waiting until it has its ports …")
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield

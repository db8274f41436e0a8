"""Processes of the stack: they are stopped with all their children, and other processes are not touched."""

import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest

from local.processes import (
    ManagedProcess,
    StackError,
    free_port,
    interrupts_ignored,
    last_lines,
    start_lock,
    start_process,
    wait_until_ready,
)
from tests.checkout import ROOT
from tests.processes import is_running
from tests.waiting import wait_for


class Shell:
    """Starts shell scripts as parts of a stack, and records them for the cleanup."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[ManagedProcess] = []

    def __call__(self, script: str, name: str = "part", **environment: str) -> ManagedProcess:
        """Start `script`, which may write the pids of its children to files in the folder."""
        log = self.folder / "logs" / f"{name}.log"
        process = start_process(name, ["sh", "-c", script], environment=environment, folder=self.folder, log=log)
        self.started.append(process)
        return process

    def pid(self, name: str) -> int:
        """Return the pid that a script wrote to `name`."""
        path = self.folder / name
        wait_for(lambda: path.exists() and path.read_text().endswith("\n"))
        return int(path.read_text())


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Return a starter of scripts; at the end, kill every process of the sessions that it began."""
    shell = Shell(tmp_path)
    yield shell
    sessions = {process.pid for process in shell.started}
    for pid in psutil.pids():
        try:
            if os.getsid(pid) in sessions:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_a_started_process_runs_until_it_is_stopped(shell: Shell) -> None:
    process = shell("exec sleep 60")
    assert process.alive()
    process.stop(grace_seconds=60)
    assert not process.alive()
    process.stop()  # a second time changes nothing


def test_stopping_ends_children_and_grandchildren(shell: Shell) -> None:
    process = shell("sh -c 'echo $$ > child; sleep 60 & echo $! > grandchild; wait' & wait")
    family = [process.pid, shell.pid("child"), shell.pid("grandchild")]
    assert all(map(is_running, family))
    process.stop(grace_seconds=60)
    assert not any(map(is_running, family))


def test_stopping_ends_what_a_child_left_behind_when_it_ended(shell: Shell) -> None:
    process = shell("sh -c 'sleep 60 & echo $! > orphan'; echo $$ > ready; sleep 60")
    shell.pid("ready")
    orphan = shell.pid("orphan")
    process.stop(grace_seconds=60)
    assert not is_running(orphan)


def test_stopping_a_process_that_crashed_ends_what_it_had_started(shell: Shell) -> None:
    process = shell("sleep 60 & echo $! > child; wait")
    child = shell.pid("child")
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not process.alive())
    process.stop(grace_seconds=60)
    assert not is_running(child)


def test_a_process_that_ignores_the_request_to_end_is_killed(shell: Shell) -> None:
    process = shell("trap '' TERM; echo $$ > ready; while true; do sleep 0.1; done")
    shell.pid("ready")
    process.stop(grace_seconds=0.3)
    wait_for(lambda: not process.alive(), what="the kill")


def test_a_process_is_asked_before_it_is_killed(shell: Shell) -> None:
    process = shell("trap 'echo tidied up > tidy; exit' TERM; echo $$ > ready; while true; do sleep 0.05; done")
    shell.pid("ready")
    process.stop(grace_seconds=60)
    assert (shell.folder / "tidy").read_text() == "tidied up\n"


WITHOUT_REAPING = """
import subprocess, sys, time
print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
time.sleep(60)
"""


def test_a_process_that_has_ended_is_not_waited_for_when_nobody_reaps_it() -> None:
    """A caller that waited for it would wait for an hour."""
    with subprocess.Popen([sys.executable, "-c", WITHOUT_REAPING], stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            process = ManagedProcess("part", pid, psutil.Process(pid).create_time(), "")
            process.stop(grace_seconds=3_600)
            assert not process.alive()
        finally:
            parent.kill()


def test_a_later_process_with_the_same_pid_is_not_ours(shell: Shell) -> None:
    process = shell("exec sleep 60")
    before = ManagedProcess(process.name, process.pid, process.created - 3600, process.log)
    assert not before.alive()
    before.stop(grace_seconds=0.1)
    assert process.alive(), "somebody else's process was stopped"


def test_a_process_that_ended_by_itself_does_not_count_as_running(shell: Shell) -> None:
    process = shell("exit 3")
    wait_for(lambda: not process.alive())
    process.stop()


def test_output_of_every_start_is_added_to_the_log(shell: Shell) -> None:
    for word in ("first", "second"):
        process = shell(f"echo {word} to stdout; echo {word} to stderr >&2")
        wait_for(lambda process=process: not process.alive())  # type: ignore[misc]
    lines = Path(process.log).read_text().splitlines()
    assert lines == ["first to stdout", "first to stderr", "second to stdout", "second to stderr"]
    assert last_lines(process.log, lines=2) == "second to stdout\nsecond to stderr"


def test_a_process_has_our_variables_its_own_and_no_terminal(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "inherited")
    monkeypatch.setenv("BOTH", "inherited")
    process = shell('echo "$OURS $BOTH $PWD"; cat', BOTH="its own")
    wait_for(lambda: not process.alive())
    assert Path(process.log).read_text() == f"inherited its own {shell.folder}\n"


def test_a_process_is_out_of_reach_of_our_ctrl_c(shell: Shell) -> None:
    assert os.getsid(shell("exec sleep 60").pid) != os.getsid(0)


def test_the_preferred_port_is_taken_when_it_is_free() -> None:
    free = free_port(0)
    assert free_port(free) == free


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - a program that listens everywhere
def test_another_port_is_taken_when_the_preferred_one_is_not_free(address: str) -> None:
    with socket.socket() as taken:
        taken.bind((address, 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = free_port(port)
    assert other != port
    assert 1024 <= other <= 65535


class Answers(BaseHTTPRequestHandler):
    """Responds with 503 twice and then with 200."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(200 if type(self).asked > 2 else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    Answers.asked = 0
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/health"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_part_is_ready_when_it_answers_200(shell: Shell, address: str) -> None:
    wait_until_ready(shell("exec sleep 60"), address, seconds=250)
    assert Answers.asked == 3, "503 is not ready"


def nowhere() -> str:
    return f"http://127.0.0.1:{free_port(0)}/health"


def test_a_part_that_ends_while_starting_is_told_with_its_last_words(shell: Shell) -> None:
    """A caller that waited for an ended process would wait for an hour."""
    process = shell("echo 'database is locked: /state/ledger.db' >&2; exit 1", name="mlflow")
    with pytest.raises(StackError, match=r"(?s)mlflow ended while starting.*database is locked: /state/ledger\.db"):
        wait_until_ready(process, nowhere(), seconds=3_600)


def test_a_part_that_never_answers_is_told_with_address_time_and_last_words(shell: Shell) -> None:
    process = shell("echo 'still migrating'; exec sleep 60", name="prefect")
    wait_for(lambda: "still migrating" in Path(process.log).read_text())
    url = nowhere()
    with pytest.raises(StackError, match=rf"(?s)prefect did not respond at {url} within 1 s.*still migrating"):
        wait_until_ready(process, url, seconds=1)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Let Ctrl-C raise as in a terminal: a process that a script starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_does_not_cut_the_stopping_short() -> None:
    with pytest.raises(KeyboardInterrupt):
        try:
            raise KeyboardInterrupt
        finally:
            with interrupts_ignored():
                signal.raise_signal(signal.SIGINT)
                stopped = True
    assert stopped
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_process_that_loads_models_gets_nothing_of_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    log, wanted = tmp_path / "log", {"PATH": os.environ["PATH"], "WANTED": "yes"}
    started = start_process("part", ["env"], environment=wanted, folder=tmp_path, log=log, inherit=False)
    wait_for(lambda: not started.alive())
    seen = log.read_text()
    assert "WANTED=yes" in seen and "canary" not in seen


STARTS = """
import sys, time
from local.processes import start_lock
with start_lock(lambda text: print(text, file=sys.stderr)):
    print("begun", time.time(), flush=True)
    sys.stdin.readline()
    print("ended", time.time(), flush=True)
"""
"""A start that continues until it is ended, and prints when it began and ended."""


def test_of_two_starts_at_once_one_waits_for_the_other(tmp_path: Path) -> None:
    def begin() -> "subprocess.Popen[str]":
        return subprocess.Popen([sys.executable, "-c", STARTS], cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)},
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip

    first, second = begin(), begin()
    try:
        with selectors.DefaultSelector() as waiting:
            for process in (first, second):
                assert process.stdout
                waiting.register(process.stdout, selectors.EVENT_READ, process)
            ahead = waiting.select(120)[0][0].data
            behind = second if ahead is first else first
            assert behind.stderr
            assert "another stack is starting" in behind.stderr.readline()
            assert [key.data for key, _ in waiting.select(0)] == [ahead], "the other has not begun"
        said = ahead.communicate("go on\n", timeout=120)[0]
        after = behind.communicate("go on\n", timeout=120)[0]
        assert float(said.split()[-1]) <= float(after.split()[1])
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


def test_a_lock_of_another_kind_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"ratchet-{os.getuid()}.lock").symlink_to(tmp_path / "elsewhere")
    with start_lock():
        assert not (tmp_path / "elsewhere").exists()

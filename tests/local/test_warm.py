"""The warm process: a program forked from it behaves as if started by `python -m`; without it, programs still run."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from local.warm_process.server import PRELOADED_LIBRARIES
from runtime import warm_client as client
from runtime.warm_client import SOCKET_VARIABLE
from tests.checkout import ROOT
from tests.processes import children
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="forking is for Linux")]

Begin = Callable[..., "subprocess.Popen[str]"]


PATIENT = "import sys; from local.warm_process import server; server.GRACE_SECONDS = 3_600; server.main(sys.argv[1:])"
"""Starts the warm process, which gives programs an hour to end when it is stopped itself."""


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[psutil.Popen]:
    """Start the warm process with one small library."""
    command = [sys.executable, "-c", PATIENT, str(tmp_path / "s"), "colorsys"]
    server = psutil.Popen(command, cwd=ROOT)
    wait_for((tmp_path / "s").exists)
    yield server
    with suppress(psutil.NoSuchProcess):  # a test may have stopped it
        server.terminate()
    assert server.wait(60) == 0
    assert not (tmp_path / "s").exists()


@pytest.fixture
def begin(tmp_path: Path) -> Begin:
    """Return a function that starts a program: its text, then its arguments."""

    def start(text: str, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        folder = tmp_path / "work"
        folder.mkdir(exist_ok=True)
        (folder / "next.py").write_text("import os, sys, time, signal\n" + text)
        (folder / "next.py").replace(folder / "program.py")  # a starting program reads the whole old file
        command = [sys.executable, "-I", "-S", client.__file__, "program", *arguments]
        variables = {**os.environ, SOCKET_VARIABLE: str(tmp_path / "s"), **environment}
        return subprocess.Popen(
            command, cwd=folder, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    return start


def ends(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_it_has_the_libraries_loaded_and_nothing_of_the_project(warm: psutil.Popen, begin: Begin) -> None:
    text = "print([name for name in ('colorsys', 'deployments', 'flows', 'blocks') if name in sys.modules])"
    loaded = wait_for(lambda: (said := ends(begin(text)))[1] != "[]\n" and said)
    assert loaded == (0, "['colorsys']\n", "")


@pytest.mark.usefixtures("warm")
def test_arguments_folder_environment_streams_and_path_are_the_callers(begin: Begin, tmp_path: Path) -> None:
    text = "print(sys.argv[1:], os.getcwd(), os.environ['COLOUR'], sys.path[0], __name__); print('oh', file=sys.stderr)"
    code, out, err = ends(begin(text, "--rate", "1", COLOUR="grün"))
    assert (code, err) == (0, "oh\n")
    assert out == f"['--rate', '1'] {tmp_path}/work grün {tmp_path}/work __main__\n"


@pytest.mark.usefixtures("warm")
def test_what_the_server_was_started_with_does_not_reach_the_program(begin: Begin) -> None:
    assert (
        ends(begin("print(set(os.environ) - set(eval(sys.argv[1])))", repr([*os.environ, SOCKET_VARIABLE])))[1]
        == "set()\n"
    )


LAST_WORDS = """
import atexit, threading
atexit.register(print, "called at the exit")
threading.Thread(target=lambda: (time.sleep(0.2), print("a thread's last word"))).start()
print("said", end="")
print(" aside", end="", file=sys.stderr)
"""
"""What a program leaves to do at its end: exit functions, a running thread, text without a line end."""


@pytest.mark.parametrize(
    ("text", "code", "complaint"),
    [
        ("", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(7)", 7, ""),
        ("sys.exit(-1)", 255, ""),
        ("sys.exit('no such model')", 1, "no such model"),
        ("1/0", 1, "ZeroDivisionError"),
        ("raise KeyboardInterrupt", -2, "KeyboardInterrupt"),
        ("sys.stdout.close()", 0, ""),
        ("os.kill(os.getpid(), 9)", -9, ""),
    ],
)
@pytest.mark.parametrize("there", [True, False], ids=["warm", "cold"])
def test_its_end_is_that_of_python(
    text: str, code: int, complaint: str, there: bool, begin: Begin, request: pytest.FixtureRequest
) -> None:
    if there:
        request.getfixturevalue("warm")
    ended, out, err = ends(begin(LAST_WORDS + text))
    assert ended == code
    assert complaint in err
    if code != -9 and "close" not in text:
        assert out == "saida thread's last word\ncalled at the exit\n"
        assert err.startswith(" aside")


@pytest.mark.parametrize(("there", "said"), [(True, ""), (False, "taken apart")], ids=["warm", "cold"])
def test_what_was_loaded_before_the_fork_is_not_taken_apart_at_the_end(
    there: bool, said: str, begin: Begin, request: pytest.FixtureRequest
) -> None:
    """Freeing it would cost a flow run 2 s of a core. A module of Python's own stands for it."""
    if there:
        request.getfixturevalue("warm")
    text = "class Loaded:\n    def __del__(self, write=os.write): write(1, b'taken apart')\nsys.loaded = Loaded()"
    assert ends(begin(text)) == (0, said, "")


@pytest.mark.usefixtures("warm")
def test_a_signal_is_passed_on(begin: Begin) -> None:
    program = begin("signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); print('ready', flush=True); time.sleep(60)")
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    program.send_signal(signal.SIGTERM)
    assert ends(program)[0] == 5


def test_a_killed_caller_takes_the_program_with_it(warm: psutil.Popen, begin: Begin) -> None:
    program = begin("print('ready', flush=True); time.sleep(60)")
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    assert len(children(warm)) == 1
    program.kill()
    wait_for(lambda: not children(warm))
    program.communicate()


TOGETHER = """
import random
print(random.random())
open(f"{os.getpid()}.here", "w").close()
while sum(name.endswith(".here") for name in os.listdir()) < 5:
    time.sleep(0.05)
"""
"""Ends when five of them run at the same time."""


def test_programs_run_side_by_side_and_ask_different_numbers(warm: psutil.Popen, begin: Begin) -> None:
    programs = [begin(TOGETHER) for _ in range(5)]
    assert len({ends(program)[1] for program in programs}) == 5
    wait_for(lambda: not children(warm))


@pytest.mark.usefixtures("warm")
def test_each_run_has_the_code_as_it_is_then(begin: Begin) -> None:
    assert ends(begin("print(1)"))[1] == "1\n"
    assert ends(begin("print(22)"))[1] == "22\n"


def test_without_a_warm_process_the_program_runs_all_the_same(begin: Begin) -> None:
    assert ends(begin("print(sys.argv[1:]); sys.exit(3)", "a")) == (3, "['a']\n", "")


def test_a_client_that_sends_nonsense_is_dropped_and_the_next_one_served(
    warm: psutil.Popen, begin: Begin, tmp_path: Path
) -> None:
    for nonsense in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64):
        connection = client.connect(str(tmp_path / "s"))
        assert connection is not None
        with connection:
            connection.sendall(nonsense) if nonsense else None
    assert ends(begin("print('served')"))[1] == "served\n"
    assert warm.is_running()


@pytest.mark.usefixtures("warm")
def test_ps_shows_whose_program_it_is(begin: Begin) -> None:
    program = begin("print(open('/proc/self/comm').read())")
    assert ends(program)[1].strip() == f"for {program.pid}"


@pytest.mark.usefixtures("warm")
def test_nobody_else_can_reach_it(tmp_path: Path) -> None:
    assert (tmp_path / "s").stat().st_mode & 0o077 == 0


@pytest.mark.slow  # imports Great Expectations, MLflow and Prefect
def test_no_library_starts_a_thread_that_a_fork_would_lose() -> None:
    text = (
        "import threading; from local.warm_process.server import PRELOADED_LIBRARIES as LIBRARIES, preload_library\n"
        "for library in LIBRARIES: preload_library(library)\n"
        "import sys; print([name for name in LIBRARIES if name not in sys.modules], threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["[] 1"], done.stderr
    assert threading.active_count() >= 1
    assert "great_expectations" in PRELOADED_LIBRARIES


@pytest.mark.parametrize("there", [True, False], ids=["warm", "cold"])
def test_a_program_outlives_its_caller_and_what_it_says_is_kept(
    there: bool, begin: Begin, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if there:
        request.getfixturevalue("warm")
    said, go = tmp_path / "said.log", tmp_path / "go"
    said.write_text("before\n")
    text = (
        f"print('begun', flush=True)\nwhile not os.path.exists({str(go)!r}): time.sleep(0.02)\n"
        "print('told', flush=True); print('at the end', file=sys.stderr)"
    )
    process = begin(text, RATCHET_RUN_OUTPUT=str(said))
    wait_for(lambda: "begun" in said.read_text())
    assert process.stdout and process.stderr
    process.stdout.close()  # as when the worker that reads it is killed
    process.stderr.close()
    go.touch()
    assert process.wait(60) == 0
    assert said.read_text() == "before\nbegun\ntold\nat the end\n"


def test_a_place_that_cannot_be_written_leaves_output_with_the_caller(begin: Begin, tmp_path: Path) -> None:
    code, out, err = ends(begin("print('told')", RATCHET_RUN_OUTPUT=str(tmp_path / "no" / "where.log")))
    assert (code, out) == (0, "told\n")
    assert err == f"output is not kept in {tmp_path}/no/where.log: No such file or directory\n"


def test_a_program_that_ends_well_while_the_warm_process_is_stopped_is_told_so(
    warm: psutil.Popen, begin: Begin, tmp_path: Path
) -> None:
    """For example a flow run that is about to wait for a person, and ignores SIGTERM from then on."""
    program = begin(
        "signal.signal(signal.SIGTERM, lambda *_: open('asked', 'w').close()); print('ready', flush=True)\n"
        "while not os.path.exists('go'): time.sleep(0.02)"
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    warm.terminate()
    wait_for((tmp_path / "work" / "asked").exists)
    assert program.poll() is None, "nobody says that it has ended"
    (tmp_path / "work" / "go").touch()
    assert ends(program) == (0, "", "")
    assert warm.wait(60) == 0

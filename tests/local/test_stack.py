"""The records of the local stack: what is found, what is refused, and who may read it. No part of it is started."""

import fcntl
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deployments.state import state_folder
from local.processes import ManagedProcess, StackError, start_process
from local.stack import Stack, find_stack, save_prefect_profile, use_running_stack
from local.supervisor import down, up
from tests.checkout import ROOT
from tests.fixtures.command_line import ratchet
from tests.waiting import wait_for

PORTS = {"prefect": 14200, "mlflow": 15000, "endpoints": 18080}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a state folder that does not exist yet, and make it this process's."""
    monkeypatch.setenv("RATCHET_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def write_down(state: Path, *processes: ManagedProcess) -> None:
    state.mkdir(parents=True, exist_ok=True)
    content = {"ports": PORTS, "processes": [vars(process) for process in processes]}
    (state / "stack.json").write_text(json.dumps(content))


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ManagedProcess]:
    """Start a process that does nothing, as a part of a stack."""
    started = start_process("worker", ["sh", "-c", "echo I work; exec sleep 60"], environment={}, folder=tmp_path,
                    log=tmp_path / "worker.log")  # fmt: skip
    yield started
    started.stop()


def gone(tmp_path: Path) -> ManagedProcess:
    """Return a process that has printed something and ended."""
    log = tmp_path / "mlflow.log"
    ended = start_process(
        "mlflow", ["sh", "-c", "echo out of memory; exit 1"], environment={}, folder=tmp_path, log=log
    )
    wait_for(lambda: not ended.alive())
    return ended


def test_no_stack_is_found_where_none_was_started(state: Path) -> None:
    assert find_stack(state) is None
    state.mkdir()
    assert find_stack(state) is None


def test_the_state_folder_is_that_of_the_environment(state: Path) -> None:
    assert state_folder() == state
    write_down(state)
    assert find_stack() == find_stack(state)
    assert find_stack() is not None


def test_a_stack_is_found_as_it_was_written_down(state: Path, process: ManagedProcess) -> None:
    write_down(state, process)
    found = find_stack(state)
    assert found == Stack(state, PORTS, (process,))
    assert found.running
    assert found.url("mlflow") == "http://127.0.0.1:15000"


def test_stacks_of_two_folders_know_nothing_of_each_other(state: Path, process: ManagedProcess) -> None:
    write_down(state, process)
    assert find_stack(state.parent / "other") is None
    assert not down(state.parent / "other")
    assert process.alive()


def test_a_stack_without_processes_does_not_run(state: Path) -> None:
    write_down(state)
    found = find_stack(state)
    assert found is not None
    assert not found.running


def test_a_stack_of_which_one_part_ended_does_not_run_and_says_which(state: Path, process: ManagedProcess) -> None:
    stack = Stack(state, PORTS, (process, gone(state.parent)))
    assert not stack.running
    with pytest.raises(StackError, match=r"(?s)mlflow has ended.*out of memory.*make up"):
        stack.check_running()
    Stack(state, PORTS, (process,)).check_running()


def test_down_without_a_stack_says_so(state: Path) -> None:
    assert down(state) is False
    done = ratchet("down")
    assert done.exit_code == 0 and "no stack to stop" in done.stdout


def test_down_stops_the_processes_and_keeps_ports_and_state(state: Path, process: ManagedProcess) -> None:
    write_down(state, process)
    (state / "ledger.db").write_text("who approved what")
    assert down(state) is True
    assert not process.alive()
    assert find_stack(state) == Stack(state, PORTS, ()), "the next start takes the same ports"
    assert (state / "ledger.db").read_text() == "who approved what"


def test_down_after_a_reboot_stops_nobody_else(state: Path, process: ManagedProcess) -> None:
    write_down(state, ManagedProcess("prefect", process.pid, process.created - 3600, process.log))
    down(state)
    assert process.alive()


def test_a_second_down_has_nothing_to_stop(state: Path, process: ManagedProcess) -> None:
    write_down(state, process)
    down(state)
    assert down(state) is False


def test_use_is_refused_when_nothing_runs_and_changes_nothing(state: Path, tmp_path: Path) -> None:
    before = dict(os.environ)
    for prepare in (lambda: None, lambda: write_down(state), lambda: write_down(state, gone(tmp_path))):
        prepare()
        with pytest.raises(StackError, match="make up"):
            use_running_stack(state)
    assert dict(os.environ) == before


def test_status_lists_each_part_and_fails_when_one_has_ended(state: Path, process: ManagedProcess) -> None:
    nothing = ratchet("status")
    assert nothing.exit_code == 1 and "make up" in nothing.stdout
    write_down(state, process)
    running = ratchet("status")
    assert running.exit_code == 0
    shown = running.stdout
    assert "worker     runs" in shown
    assert f"http://127.0.0.1:18080/dashboards/    files: {state}/dashboards" in shown
    write_down(state, process, gone(state.parent))
    ended = ratchet("status")
    assert ended.exit_code == 1
    assert "mlflow     ENDED  http://127.0.0.1:15000" in ended.stdout


def test_deploying_to_no_stack_is_an_error_and_no_traceback(state: Path) -> None:
    refused = ratchet("deploy")
    assert refused.exit_code == 1 and "error: the stack does not run" in refused.stderr


def test_a_running_stack_is_not_started_again(state: Path, process: ManagedProcess) -> None:
    write_down(state, process)
    said: list[str] = []
    assert up(said.append, state).processes == (process,)
    assert said == ["the stack runs already"]


def test_only_one_starts_the_stack_at_a_time(state: Path) -> None:
    state.mkdir()
    with (state / "stack.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StackError, match="another `make up`"):
            up(print, state)
    assert not (state / "stack.json").exists()


@pytest.fixture
def failed(state: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Try to start a stack with a Python that does not start, and return the error."""
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(StackError) as told:
        up(print, state)
    return str(told.value)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_stack_that_does_not_come_up_says_why_and_leaves_nothing_running(state: Path, failed: str) -> None:
    assert "prefect ended while starting" in failed
    assert "init_fs_encoding" in failed, "the last words are Python's own"
    found = find_stack(state)
    assert found is not None
    assert found.processes == ()
    ours = [p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("RATCHET_STATE") == str(state)]
    assert [p for p in ours if p.pid != os.getpid()] == []
    with pytest.raises(StackError):
        use_running_stack(state)


def test_state_and_token_are_for_their_owner_alone(state: Path, failed: str) -> None:
    assert mode(state) == 0o700
    token = state / "endpoints" / "token"
    assert mode(token) == 0o600
    assert mode(token.parent) == 0o700
    assert len(token.read_text()) >= 32


def test_token_and_secret_stay_the_same_from_start_to_start(state: Path, failed: str) -> None:
    files = (state / "endpoints" / "token", state / "keys" / "prefect-api")
    before = [file.read_text() for file in files]
    with pytest.raises(StackError):
        up(print, state)
    assert [file.read_text() for file in files] == before


def test_prefects_secret_is_for_its_owner_alone_and_status_prints_it(state: Path, failed: str) -> None:
    secret, profile = state / "keys" / "prefect-api", state / "prefect" / "profiles.toml"
    assert mode(secret) == mode(profile) == 0o600
    assert len(secret.read_text()) >= 40 and secret.read_text().startswith("ratchet:")
    write_down(state, ManagedProcess("worker", os.getpid(), psutil.Process().create_time(), ""))
    shown = ratchet("status").stdout
    assert secret.read_text() in shown and f"export PREFECT_HOME={state}/prefect" in shown


@pytest.mark.slow
def test_prefect_commands_find_address_and_secret_in_the_profile(state: Path) -> None:
    stack = Stack(state, PORTS)
    (state / "keys").mkdir(parents=True)
    (state / "keys" / "prefect-api").write_text("ratchet:of-a-test")
    save_prefect_profile(stack)
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [str(Path(sys.executable).with_name("prefect")), "config", "view", "--show-secrets"]
    variables = {**others, "PREFECT_HOME": f"{state}/prefect", "COLUMNS": "200"}
    done = subprocess.run(command, env=variables, cwd=state, capture_output=True, text=True, check=True, timeout=120)
    assert "PREFECT_API_URL='http://127.0.0.1:14200/api' (from profile)" in done.stdout
    assert "PREFECT_API_AUTH_STRING='ratchet:of-a-test' (from profile)" in done.stdout


def test_an_address_that_is_none_starts_nothing(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_MLFLOW_ADDRESSES", "https://mlflow.example.com mlflow.example.com")
    with pytest.raises(StackError, match="RATCHET_MLFLOW_ADDRESSES: 'mlflow.example.com' is not the address"):
        up(print, state)
    assert not (state / "logs").exists()


def test_a_state_folder_that_was_there_is_closed_to_others_too(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.mkdir(mode=0o755)
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(StackError):
        up(print, state)
    assert mode(state) == 0o700


def test_parts_talk_to_their_own_stack_alone(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet")
    variables = Stack(state, PORTS).environment_variables()
    assert variables["PREFECT_API_URL"] == "http://127.0.0.1:14200/api"
    assert variables["RATCHET_MLFLOW_URL"] == "http://127.0.0.1:15000"
    assert variables["RATCHET_ENDPOINTS_URL"] == "http://127.0.0.1:18080"
    assert variables["NO_PROXY"] == "intranet,127.0.0.1,localhost"
    assert all(Path(variables[name]).is_relative_to(state) for name in ("PREFECT_HOME", "RATCHET_STATE"))


def test_taking_the_stack_down_does_not_wait_for_prefect_to_be_imported() -> None:
    program = "import sys, local.stack; sys.exit('prefect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_status_says_where_people_decide(state: Path, process: ManagedProcess) -> None:
    state.mkdir(parents=True)
    stored = {"ports": {**PORTS, "gateway": 18090}, "processes": [vars(process)]}
    (state / "stack.json").write_text(json.dumps(stored))
    found = ratchet("status")
    assert found.exit_code == 0 and "http://127.0.0.1:18090/approvals" in found.stdout

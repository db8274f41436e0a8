"""The embedded stack on one machine: Prefect server and worker, MLflow, endpoints, gateway. All state in one folder."""

import fcntl
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from blocks.common.trust import signer_from
from deployments.state import ROOT, state_folder
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
from runtime.files import write_text_atomically
from runtime.keys import create_key
from runtime.warm_client import SOCKET_VARIABLE

WARM_PROCESS_SOCKET = "prefork.sock"
DECISIONS_KEY, MODELS_KEY = Path("keys") / "decisions.pem", Path("keys") / "models.pem"
PREFERRED_PORTS = {"prefect": 4200, "mlflow": 5000, "endpoints": 8080, "gateway": 8090}


@dataclass(frozen=True)
class Stack:
    """A stack: its state folder, its ports, and the processes that were started."""

    state_folder: Path
    ports: Mapping[str, int]
    processes: tuple[ManagedProcess, ...] = field(default=())

    def url(self, name: str) -> str:
        """Return the address of `prefect`, `mlflow`, `endpoints` or `gateway`."""
        return f"http://127.0.0.1:{self.ports[name]}"

    @property
    def running(self) -> bool:
        """Whether every process of the stack runs."""
        return bool(self.processes) and all(process.alive() for process in self.processes)

    def check_running(self) -> None:
        """Raise StackError, with its last words, when a process of the stack has ended."""
        for process in self.processes:
            if not process.alive():
                raise StackError(
                    f"{process.name} has ended. Its last words:\n{last_lines(process.log)}\nStart again: make up"
                )

    def environment_variables(self) -> dict[str, str]:
        """Return the variables that the stack's processes run with, and that `prefect` commands need."""
        state = str(self.state_folder)
        return {
            "PREFECT_HOME": f"{state}/prefect",
            "PREFECT_PROFILES_PATH": f"{state}/prefect/profiles.toml",
            "PREFECT_API_URL": f"{self.url('prefect')}/api",
            "PREFECT_RESULTS_LOCAL_STORAGE_PATH": f"{state}/results",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
            # Any web page that the reader has open can reach a port on this machine: it must not get answers.
            "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": self.url("prefect"),
            "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_WORKER_QUERY_SECONDS": "0.5",
            "PREFECT_WORKER_CANCELLATION_POLL_SECONDS": "5",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "PREFECT_LOGGING_COLORS": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven more processes, for jobs that we do not have
            "DO_NOT_TRACK": "1",
            "GX_ANALYTICS_ENABLED": "false",
            "RATCHET_STATE": state,
            "RATCHET_DECISIONS_KEY": _public_key(self.state_folder / DECISIONS_KEY),
            "RATCHET_MODELS_KEY": _public_key(self.state_folder / MODELS_KEY),
            "RATCHET_MLFLOW_URL": self.url("mlflow"),
            "RATCHET_ENDPOINTS_URL": self.url("endpoints"),
            SOCKET_VARIABLE: f"{state}/{WARM_PROCESS_SOCKET}",
            "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY", ""), "127.0.0.1,localhost"])),
        }


def find_stack(state: Path | None = None) -> Stack | None:
    """Return the stack of a state folder as it was last written down, or None."""
    folder = state or state_folder()
    try:
        stored = json.loads((folder / "stack.json").read_text())
    except FileNotFoundError:
        return None
    return Stack(folder, stored["ports"], tuple(ManagedProcess(**process) for process in stored["processes"]))


def use_running_stack(state: Path | None = None) -> Stack:
    """Point this process, Prefect included, at the running stack, and return it.

    Raises:
        StackError: no stack runs.
    """
    stack = find_stack(state)
    if stack is None or not stack.running:
        raise StackError("the stack does not run; start it with: make up")
    os.environ.update(stack.environment_variables())
    from prefect.context import refresh_global_settings_context  # 1 s, which `down` need not pay

    refresh_global_settings_context()
    return stack


def up(say: Callable[[str], None] = print, state: Path | None = None) -> Stack:
    """Start what does not run yet and return the stack; a second call changes nothing.

    Raises:
        StackError: a part did not come up; what had been started is stopped again.
    """
    folder = state or state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with _stack_lock(folder):
        found = find_stack(folder)
        if found and found.running:
            say("the stack runs already")
            return found
        if found:
            _stop_processes(found)
        _create_token(folder / "endpoints" / "token")
        create_key(folder / DECISIONS_KEY, "ed25519")
        create_key(folder / MODELS_KEY, "p256")
        with start_lock(say):
            return _start_processes(Stack(folder, _choose_ports(found)), say)


def down(state: Path | None = None) -> bool:
    """Stop the stack; return whether there was one. What it stored stays."""
    found = find_stack(state)
    if found is None or not found.processes:
        return False
    _stop_processes(found)
    return True


def _start_processes(stack: Stack, say: Callable[[str], None]) -> Stack:
    def begin(stack: Stack, name: str, command: list[str]) -> Stack:
        log = stack.state_folder / "logs" / f"{name}.log"
        loads_models = name == "endpoints"
        variables = _minimal_environment() if loads_models else stack.environment_variables()
        process = start_process(name, command, environment=variables, folder=ROOT, log=log, inherit=not loads_models)
        begun = Stack(stack.state_folder, stack.ports, (*stack.processes, process))
        _save(begun)
        return begun

    try:
        for name, command in _commands(stack).items():
            stack = begin(stack, name, command)
        by_name = {process.name: process for process in stack.processes}
        ready = {"prefect": "/api/health", "mlflow": "/health", "endpoints": "/ping", "gateway": "/ping"}
        for name, path in ready.items():
            wait_until_ready(by_name[name], stack.url(name) + path)
            say(f"{name} answers at {stack.url(name)}")
        if _supports_warm_process(stack.state_folder):  # last: it keeps a core busy for 10 s that nobody waits for
            stack = begin(stack, "prefork", _warm_process_command(stack.state_folder))
    except BaseException:
        _stop_processes(stack)
        raise
    return stack


def _commands(stack: Stack) -> dict[str, list[str]]:
    state, ports = stack.state_folder, stack.ports
    module = [sys.executable, "-m"]
    local = ["--host", "127.0.0.1", "--port"]
    return {
        "prefect": [*module, "local.prefect_server", *local, str(ports["prefect"])],
        # One worker process: several that open a new database at once break it for good.
        "mlflow": [*module, "mlflow", "server", *local, str(ports["mlflow"]), "--workers", "1",
                   "--backend-store-uri", f"sqlite:///{state}/mlflow.db",
                   "--artifacts-destination", os.environ.get("RATCHET_ARTIFACTS", f"{state}/artifacts")],
        "endpoints": [*module, "services.model_server", "--port", str(ports["endpoints"]),
                      "--state", f"{state}/endpoints", "--token-file", f"{state}/endpoints/token",
                      "--trusted-key", _public_key(state / MODELS_KEY), "--dashboards", f"{state}/dashboards"],
        "worker": [*module, "local.worker"],
        "gateway": [*module, "services.gateway", "serve", "--port", str(ports["gateway"])],
    }  # fmt: skip


def _warm_process_command(state: Path) -> list[str]:
    return [sys.executable, "-m", "local.warm_process.server", f"{state}/{WARM_PROCESS_SOCKET}"]


def _supports_warm_process(state: Path) -> bool:
    """Whether flow runs start from a warm process: on Linux, where the socket's path is short enough for one."""
    return sys.platform == "linux" and len(f"{state}/{WARM_PROCESS_SOCKET}".encode()) < 108


def _stop_processes(stack: Stack) -> None:
    with interrupts_ignored():
        for process in reversed(stack.processes):
            process.stop()
        _save(Stack(stack.state_folder, stack.ports))


def _choose_ports(found: Stack | None) -> dict[str, int]:
    known = dict(found.ports) if found else {}
    return {name: free_port(known.get(name, port)) for name, port in PREFERRED_PORTS.items()}


def _minimal_environment() -> dict[str, str]:
    """Return the environment of the process that loads models: none of our addresses, nobody's credentials."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "TZ", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def _public_key(key: Path) -> str:
    """Return the public half of a key of ours, "" when it is not made yet."""
    return signer_from(key).public_key_line if key.exists() else ""


def _create_token(path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as stream:
            stream.write(secrets.token_urlsafe(32))


def _save(stack: Stack) -> None:
    content = {"ports": dict(stack.ports), "processes": [asdict(process) for process in stack.processes]}
    write_text_atomically(stack.state_folder / "stack.json", json.dumps(content, indent=2))


@contextmanager
def _stack_lock(folder: Path) -> Iterator[None]:
    with (folder / "stack.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            raise StackError("another `make up` or `make demo` is starting the stack just now") from cause
        yield


def described(stack: Stack | None) -> str:
    """Return what runs and where, a line for each part."""
    if stack is None or not stack.processes:
        return "the stack does not run; start it with: make up"
    lines = []
    for process in stack.processes:
        address = stack.url(process.name) if process.name in stack.ports else ""
        status = "runs" if process.alive() else "ENDED"
        lines.append(f"{process.name:<10} {status:<6} {address:<28} log: {process.log}")
    lines.append(
        f"{'dashboards':<17} {stack.url('endpoints')}/dashboards/    files: {stack.state_folder / 'dashboards'}"
    )
    if "gateway" in stack.ports:
        lines.append(f"{'approvals':<17} {stack.url('gateway')}/approvals    accounts: docs/approvals.md")
    return "\n".join(lines)

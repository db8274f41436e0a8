"""Start and stop the local stack: Prefect server and worker, MLflow, endpoints, gateway, warm process."""

import fcntl
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deployments.state import ROOT, state_folder
from local.processes import StackError, free_port, interrupts_ignored, start_lock, start_process, wait_until_ready
from local.stack import (
    DECISIONS_KEY,
    MODELS_KEY,
    PREFECT_SECRET,
    RECORDS_KEY,
    WARM_PROCESS_SOCKET,
    Stack,
    find_stack,
    public_key_line,
    save_prefect_profile,
    save_stack,
)
from runtime.foreign_pages import parse_address
from runtime.keys import create_key

PREFERRED_PORTS = {"prefect": 4200, "mlflow": 5000, "endpoints": 8080, "gateway": 8090}


def up(say: Callable[[str], None] = print, state: Path | None = None) -> Stack:
    """Start the stack and return it; a second call changes nothing.

    Raises:
        StackError: a process did not start; the processes started before it are stopped again.
    """
    folder = state or state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with _stack_lock(folder):
        saved = find_stack(folder)
        if saved and saved.running:
            say("the stack runs already")
            return saved
        if saved:
            _stop_processes(saved)
        _create_secret(folder / "endpoints" / "token")
        _create_secret(folder / PREFECT_SECRET, "ratchet:")  # user and password of HTTP Basic authentication
        create_key(folder / DECISIONS_KEY, "ed25519")
        create_key(folder / RECORDS_KEY, "ed25519")
        create_key(folder / MODELS_KEY, "p256")
        with start_lock(say):
            chosen = Stack(folder, _choose_ports(saved))
            save_prefect_profile(chosen)
            return _start_processes(chosen, say)


def down(state: Path | None = None) -> bool:
    """Stop the stack; return whether there was one. Its stored data is kept."""
    saved = find_stack(state)
    if saved is None or not saved.processes:
        return False
    _stop_processes(saved)
    return True


def _start_processes(stack: Stack, say: Callable[[str], None]) -> Stack:
    def begin(stack: Stack, name: str, command: list[str]) -> Stack:
        log = stack.state_folder / "logs" / f"{name}.log"
        loads_models = name == "endpoints"
        variables = _minimal_environment() if loads_models else _environment(stack, name)
        process = start_process(name, command, environment=variables, folder=ROOT, log=log, inherit=not loads_models)
        extended = Stack(stack.state_folder, stack.ports, (*stack.processes, process))
        save_stack(extended)
        return extended

    try:
        for name, command in _commands(stack).items():
            if name == "worker":  # it and the gateway read the trust file; the servers are starting meanwhile
                _create_trust_file(stack)
            stack = begin(stack, name, command)
        by_name = {process.name: process for process in stack.processes}
        ready = {"prefect": "/api/health", "mlflow": "/health", "endpoints": "/ping", "gateway": "/ping"}
        for name, path in ready.items():
            wait_until_ready(by_name[name], stack.url(name) + path)
            say(f"{name} is ready at {stack.url(name)}")
        if _supports_warm_process(stack.state_folder):  # last: it uses a core for 10 s, and nothing waits for it
            socket = f"{stack.state_folder}/{WARM_PROCESS_SOCKET}"
            stack = begin(stack, "warm-process", [sys.executable, "-m", "local.warm_process.server", socket])
    except BaseException:
        _stop_processes(stack)
        raise
    return stack


def _commands(stack: Stack) -> dict[str, list[str]]:
    state, ports = stack.state_folder, stack.ports
    module = [sys.executable, "-m"]
    prefect, mlflow, endpoints = map(_declared_addresses, ("prefect", "mlflow", "endpoints"))
    names = ["localhost:*", "127.0.0.1:*", *(address.partition("://")[2] for address in mlflow)]
    return {
        "prefect": [*module, "local.prefect_server", "--port", str(ports["prefect"]),
                    *(f"--address={address}" for address in prefect)],
        # One worker process: several that open a new database at the same time break it permanently.
        "mlflow": [*module, "mlflow", "server", "--host", "127.0.0.1", "--port", str(ports["mlflow"]), "--workers", "1",
                   "--uvicorn-opts", "--http local.mlflow_server:GuardedProtocol", "--allowed-hosts", ",".join(names),
                   "--cors-allowed-origins", ",".join(mlflow), "--backend-store-uri", f"sqlite:///{state}/mlflow.db",
                   "--artifacts-destination", os.environ.get("RATCHET_ARTIFACTS", f"{state}/artifacts")],
        "endpoints": [*module, "services.model_server", "--port", str(ports["endpoints"]),
                      "--state", f"{state}/endpoints", "--token-file", f"{state}/endpoints/token",
                      "--trusted-key", public_key_line(state / MODELS_KEY), "--dashboards", f"{state}/dashboards",
                      *(f"--address={address}" for address in endpoints)],
        "worker": [*module, "local.worker"],
        "gateway": [*module, "services.gateway", "serve", "--port", str(ports["gateway"])],
    }  # fmt: skip


def _declared_addresses(name: str) -> list[str]:
    """Return the addresses besides the loopback ones by which browsers reach a server. Raises StackError."""
    variable = f"RATCHET_{name.upper()}_ADDRESSES"
    addresses = os.environ.get(variable, "").split()
    try:
        return [address for address in addresses if parse_address(address)]
    except ValueError as cause:
        raise StackError(f"the variable {variable}: {cause}") from cause


def _environment(stack: Stack, name: str) -> dict[str, str]:
    """Return the variables of a process; only those that call Prefect get its API secret."""
    variables = stack.environment_variables()
    if name == "prefect":
        return variables | {"PREFECT_SERVER_API_AUTH_STRING": variables["PREFECT_API_AUTH_STRING"]}
    return variables if name in ("worker", "gateway") else variables | {"PREFECT_API_AUTH_STRING": ""}


def _supports_warm_process(state: Path) -> bool:
    """Whether the warm process can be used: on Linux, if the socket's path has fewer than 108 bytes."""
    return sys.platform == "linux" and len(f"{state}/{WARM_PROCESS_SOCKET}".encode()) < 108


def _stop_processes(stack: Stack) -> None:
    with interrupts_ignored():
        for process in reversed(stack.processes):
            process.stop()
        save_stack(Stack(stack.state_folder, stack.ports))


def _choose_ports(saved: Stack | None) -> dict[str, int]:
    known = dict(saved.ports) if saved else {}
    return {name: free_port(known.get(name, port)) for name, port in PREFERRED_PORTS.items()}


def _minimal_environment() -> dict[str, str]:
    """Return the environment of the process that loads models: no addresses of the stack and no credentials."""
    passed_on = ("PATH", "HOME", "LANG", "TMPDIR", "TZ", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in passed_on if name in os.environ} | {
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def _create_secret(path: Path, user: str = "") -> None:
    """Write a random secret, for the owner only, unless there is one."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as stream:
            stream.write(f"{user}{secrets.token_urlsafe(32)}")


def _create_trust_file(stack: Stack) -> None:
    """Write the trust file of a new stack. Later its settings and its blocks change together, when it is deployed."""
    path = stack.state_folder / "trust" / "local.toml"
    if not path.exists():
        from deployments.register import read_environment_settings, write_trust_file  # imports Prefect

        write_trust_file(path, read_environment_settings("local", {**os.environ, **stack.environment_variables()}))


@contextmanager
def _stack_lock(folder: Path) -> Iterator[None]:
    with (folder / "stack.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            raise StackError("another `make up` or `make demo` is starting the stack at the moment") from cause
        yield

"""The local stack as it is saved in its state folder: ports, processes, and the variables that lead to them."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from blocks.environment_settings import TRUST_VARIABLE
from deployments.state import state_folder
from local.processes import (
    ManagedProcess,
    StackError,
    last_lines,
)
from runtime.files import write_text_atomically
from runtime.keys import KeyProblem, load_signer
from runtime.warm_client import SOCKET_VARIABLE

if TYPE_CHECKING:
    from blocks.environment import Environment

STACK_STOPPED = "the stack does not run; start it with: make up"
WARM_PROCESS_SOCKET = "warm.sock"
DECISIONS_KEY, RECORDS_KEY, MODELS_KEY = (Path("keys") / f"{name}.pem" for name in ("decisions", "records", "models"))
PREFECT_SECRET = Path("keys") / "prefect-api"
"""File with the secret of the embedded Prefect server's API, `ratchet:…`: user and password of HTTP Basic."""

PROFILE_SETTINGS = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING")


@dataclass(frozen=True)
class Stack:
    """A stack: its state folder, its ports, and its processes."""

    state_folder: Path
    ports: Mapping[str, int]
    processes: tuple[ManagedProcess, ...] = field(default=())

    def url(self, name: str) -> str:
        """Return the address of `prefect`, `mlflow`, `endpoints` or `gateway`."""
        return f"http://127.0.0.1:{self.ports[name]}"

    @property
    def prefect_secret(self) -> str:
        """The secret that Prefect's UI and API ask for; "" before the first start."""
        file = self.state_folder / PREFECT_SECRET
        return file.read_text(encoding="ascii") if file.exists() else ""

    @property
    def running(self) -> bool:
        """Whether every process of the stack runs."""
        return bool(self.processes) and all(process.alive() for process in self.processes)

    def check_running(self) -> None:
        """Raise StackError, with the last log lines, when a process of the stack has ended."""
        for process in self.processes:
            if not process.alive():
                raise StackError(
                    f"{process.name} has ended. Its last log lines:\n{last_lines(process.log)}\nStart again: make up"
                )

    def environment_variables(self) -> dict[str, str]:
        """Return the environment variables of the stack's processes, which `prefect` commands need as well."""
        state = str(self.state_folder)
        return {
            "PREFECT_HOME": f"{state}/prefect",
            "PREFECT_PROFILES_PATH": f"{state}/prefect/profiles.toml",
            "PREFECT_API_URL": f"{self.url('prefect')}/api",
            "PREFECT_API_AUTH_STRING": self.prefect_secret,
            "PREFECT_UI_API_URL": "/api",  # the UI also works as http://localhost, through a tunnel and behind a proxy
            "PREFECT_RESULTS_LOCAL_STORAGE_PATH": f"{state}/results",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
            # Any page that is open in a browser can reach a port of this machine: see `runtime/foreign_pages.py`.
            "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": self.url("prefect"),
            "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_WORKER_QUERY_SECONDS": "0.5",
            "PREFECT_WORKER_CANCELLATION_POLL_SECONDS": "5",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "PREFECT_LOGGING_COLORS": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_AI_GATEWAY": "false",  # it calls any server, with keys from files of its clients' choice
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven more processes, for jobs that are not used
            "DO_NOT_TRACK": "1",
            "GX_ANALYTICS_ENABLED": "false",
            "RATCHET_STATE": state,
            TRUST_VARIABLE: f"{state}/trust",
            "RATCHET_DECISIONS_KEY": public_key_line(self.state_folder / DECISIONS_KEY),
            "RATCHET_RECORDS_KEY": public_key_line(self.state_folder / RECORDS_KEY),
            "RATCHET_MODELS_KEY": public_key_line(self.state_folder / MODELS_KEY),
            "RATCHET_MLFLOW_URL": self.url("mlflow"),
            "RATCHET_ENDPOINTS_URL": self.url("endpoints"),
            SOCKET_VARIABLE: f"{state}/{WARM_PROCESS_SOCKET}",
            "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY", ""), "127.0.0.1,localhost"])),
        }


def find_stack(state: Path | None = None) -> Stack | None:
    """Return the stack saved in a state folder, or None."""
    folder = state or state_folder()
    try:
        stored = json.loads((folder / "stack.json").read_text())
    except FileNotFoundError:
        return None
    return Stack(folder, stored["ports"], tuple(ManagedProcess(**process) for process in stored["processes"]))


def use_running_stack(state: Path | None = None) -> Stack:
    """Set the variables of the running stack in this process, refresh Prefect's settings, and return the stack.

    Raises:
        StackError: no stack runs.
    """
    stack = find_stack(state)
    if stack is None or not stack.running:
        raise StackError(STACK_STOPPED)
    os.environ.update(stack.environment_variables())
    from prefect.context import refresh_global_settings_context  # takes 1 s, which `down` does not need

    refresh_global_settings_context()
    return stack


def public_key_line(key: Path) -> str:
    """Return the public key of a private key file, "" when the file does not exist yet. Raises StackError."""
    try:
        return load_signer(key).public_key_line if key.exists() else ""
    except KeyProblem as cause:
        raise StackError(str(cause)) from cause


def save_stack(stack: Stack) -> None:
    """Save ports and processes in the state folder, where `find_stack` reads them."""
    content = {"ports": dict(stack.ports), "processes": [asdict(process) for process in stack.processes]}
    write_text_atomically(stack.state_folder / "stack.json", json.dumps(content, indent=2))


def save_prefect_profile(stack: Stack) -> None:
    """Write address and secret into the profile that `prefect` commands use with `PREFECT_HOME` set."""
    variables = stack.environment_variables()
    file = Path(variables["PREFECT_PROFILES_PATH"])
    file.parent.mkdir(mode=0o700, exist_ok=True)
    values = [f'{name} = "{variables[name]}"' for name in PROFILE_SETTINGS]
    write_text_atomically(file, "\n".join(['active = "ratchet"', "[profiles.ratchet]", *values, ""]), mode=0o600)


def stack_text(stack: Stack | None) -> str:
    """Return state, address and log of each process, one per line."""
    if stack is None or not stack.processes:
        return STACK_STOPPED
    lines = []
    for process in stack.processes:
        address = stack.url(process.name) if process.name in stack.ports else ""
        status = "runs" if process.alive() else "ENDED"
        lines.append(f"{process.name:<10} {status:<6} {address:<28} log: {process.log}")
    lines.append(
        f"{'dashboards':<17} {stack.url('endpoints')}/dashboards/    files: {stack.state_folder / 'dashboards'}"
    )
    lines.append(f"{'prefect secret':<17} {stack.prefect_secret}    its UI asks for it once")
    lines.append(f"{'prefect commands':<17} export PREFECT_HOME={stack.state_folder}/prefect")
    if "gateway" in stack.ports:
        lines.append(f"{'approvals':<17} {stack.url('gateway')}/approvals    accounts: docs/approvals.md")
    return "\n".join(lines)


def running_environment(environment: str = "local", *, check_blocks: bool = True) -> "Environment":
    """Connect this process to the running stack, and return an environment of it.

    With `check_blocks=False` it is returned although its blocks on the Prefect server were changed.

    Raises:
        StackError: no stack runs.
        TrustDiffers: the environment is not registered, or its blocks are not those of the trust file.
    """
    from blocks.environment import open_environment, trusted_environment  # imports Prefect

    use_running_stack()
    return open_environment(environment) if check_blocks else trusted_environment(environment)

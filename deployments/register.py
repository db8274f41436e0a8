"""Register an environment's blocks with Prefect, and deploy the flows."""

import hashlib
import os
import shlex
import string
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import prefect
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker
from pydantic import ValidationError

from blocks.common.errors import Rejected
from blocks.common.trust import Purpose
from blocks.environment import AlertRouting, Environment, adapter_class
from deployments.automations import save_automations
from deployments.environment_files import environment_file
from runtime.digests import file_digest

ROOT = Path(__file__).resolve().parent.parent
REQUIRED_PORTS = ("lake", "engine", "trainer", "endpoint", "tracking", "ledger")
OPTIONAL_PORTS = ("small_trainer", "batch_inference", "cloud_cleanup")
"""Ports that an environment may leave out."""
TASK_RUNNERS = ("thread", "dask")
WORK_POOL, MAX_RUNS = "local", 4
"""The work pool, and how many of its flow runs run at once."""


class MissingVariable(Rejected):
    """A variable that an environment's file needs is not set."""


def read_environment_settings(name: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """Return `deployments/environments/<name>.toml` with each `${VARIABLE}` filled in.

    Raises:
        NotFound: there is no such file.
        Rejected: a port is missing; the message names it.
        MissingVariable: a variable is not set.
    """
    path = environment_file(name, ROOT)
    try:
        settings = {
            key: _substitute_variables(value, variables) for key, value in tomllib.loads(path.read_text()).items()
        }
    except KeyError as cause:
        raise MissingVariable(f"{path.name} needs the variable {cause}, which is not set; `make up` sets it") from cause
    except (ValueError, tomllib.TOMLDecodeError) as cause:
        raise Rejected(f"{path.name} cannot be read: {cause}") from cause
    missing = [port for port in REQUIRED_PORTS if not isinstance(settings.get(port), dict)]
    if missing:
        raise Rejected(f"{path.name} has no table for: {', '.join(missing)}; each port needs its own table")
    ports = _configured_ports(settings)
    unnamed = [
        port for port in ports if not (isinstance(t := settings[port], dict) and isinstance(t.get("adapter"), str))
    ]
    if unnamed:
        raise Rejected(f'{path.name} has no adapter for: {", ".join(unnamed)}; write adapter = "blocks.…"')
    adapters = [settings[port]["adapter"] for port in ports]
    if repeated := sorted({adapter for adapter in adapters if adapters.count(adapter) > 1}):
        raise Rejected(
            f"{path.name} names {', '.join(repeated)} twice; Prefect saves one block per class and name, so keep one"
        )
    if not isinstance(settings.get("scratch"), str):
        raise Rejected(f'{path.name} has no scratch folder; write scratch = "/some/folder" at its top')
    if (runner := settings.get("task_runner", "thread")) not in TASK_RUNNERS:
        raise Rejected(f"{path.name} has task_runner = {runner!r}; known are: {', '.join(TASK_RUNNERS)}")
    if not isinstance(settings.get("task_runner_address", ""), str):
        raise Rejected(f'{path.name} has a task_runner_address that is not text; write "tcp://host:8786"')
    try:
        AlertRouting(**settings.get("alerts", {}))
    except ValidationError as cause:
        first = cause.errors()[0]
        place = ".".join(map(str, ("alerts", *first["loc"])))
        problem = f"{first['msg']} (value: {first['input']!r}); see docs/alerts.md"
        raise Rejected(f"{path.name}, {place}: {problem}") from cause
    return settings


def _substitute_variables(value: Any, variables: Mapping[str, str]) -> Any:
    """Substitute the variables in every text of a setting, after parsing, so that no value is parsed as TOML."""
    if isinstance(value, dict):
        return {key: _substitute_variables(part, variables) for key, part in value.items()}
    if isinstance(value, list):
        return [_substitute_variables(part, variables) for part in value]
    return string.Template(value).substitute(variables) if isinstance(value, str) else value


def register_environment(name: str, variables: Mapping[str, str]) -> Environment:
    """Save the environment and the block of each of its adapters, replacing existing ones; return the environment."""
    settings = read_environment_settings(name, variables)
    environment = build_environment(name, settings)
    for port in _configured_ports(settings):
        fields = {key: value for key, value in settings[port].items() if key != "adapter"}
        adapter_class(settings[port]["adapter"])(**fields).save(name, overwrite=True)
    environment.save(name, overwrite=True)
    return environment


def build_environment(
    name: str, settings: Mapping[str, Any], environment_class: type[Environment] = Environment
) -> Environment:
    """Return the environment that the settings describe, as an object of `environment_class`.

    Raises:
        Rejected: a setting of keys, approvals, people or the gateway is not valid; the message names the key.
    """
    known = {key: value for key, value in settings.items() if key in Environment.model_fields}
    adapters = {f"{port}_adapter": settings[port]["adapter"] for port in _configured_ports(settings)}
    try:
        environment = environment_class(**{**known, **adapters, "name": name, "scratch": Path(settings["scratch"])})
        for purpose in get_args(Purpose):
            environment.signing.trusted_keys(purpose)  # raises Rejected for a public key that cannot be read
    except (ValidationError, Rejected) as cause:
        problem = _validation_message(cause) if isinstance(cause, ValidationError) else str(cause)
        raise Rejected(f"{name}.toml: {problem}") from cause
    return environment


def _configured_ports(settings: Mapping[str, Any]) -> list[str]:
    """Return the ports that the settings have a table for."""
    return [*REQUIRED_PORTS, *(port for port in OPTIONAL_PORTS if port in settings)]


def _validation_message(cause: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in cause.errors())


def create_work_pool() -> None:
    """Create or update the process work pool: one process per run.

    Prefect's default starts two processes, one for the pull steps and one for the flow, and imports itself in both,
    which takes 3 s. This pool starts one process, forked from the warm process that has the libraries loaded. Without
    a warm process (a worker on another machine) it starts as usual.
    """
    template = ProcessWorker.get_default_base_job_template()
    variables = template["variables"]["properties"]
    start = [sys.executable, "-I", "-S", str(ROOT / "runtime" / "warm_client.py"), "prefect.engine"]
    variables["command"]["default"] = shlex.join(start)
    variables["working_dir"]["default"] = str(ROOT)
    with get_client(sync_client=True) as client:
        with suppress(ObjectAlreadyExists):  # the worker has created it
            # With its template at once: a worker that found a pool without one would write Prefect's over ours.
            client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process", base_job_template=template))
        client.update_work_pool(WORK_POOL, WorkPoolUpdate(concurrency_limit=MAX_RUNS, base_job_template=template))


def deploy_flows(name: str) -> None:
    """Register the environment's blocks, then `prefect deploy` everything in `prefect.yaml`.

    Raises:
        Rejected: `prefect deploy` failed; the message contains its output.
    """
    register_environment(name, os.environ)
    create_work_pool()
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Rejected(f"`prefect deploy --all` failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    save_automations()


def deploy_if_changed(name: str, record: Path) -> bool:
    """Deploy if something changed since the deployment in `record`; return whether it deployed.

    `prefect deploy` imports every flow again, which takes 6 to 9 s of each `make up` and `make demo`. Changes are:
    `prefect.yaml`, the code of flows and blocks, the environment's settings, the interpreter, Prefect's release,
    another server, and a deployment or environment that is missing on the server. A schedule that was paused on the UI
    stays paused.
    """
    fingerprint = deployment_fingerprint(name, os.environ)
    if record.exists() and record.read_text() == fingerprint and _is_deployed(name):
        return False
    record.unlink(missing_ok=True)  # so that an interrupted deployment does not count as complete
    deploy_flows(name)
    record.write_text(fingerprint)
    return True


def deployment_fingerprint(name: str, variables: Mapping[str, str]) -> str:
    """Return the SHA-256 (hex) over everything that determines the result of `deploy` on the server."""
    sha256 = hashlib.sha256()
    for part in (sys.executable, prefect.__version__, variables.get("PREFECT_API_URL", "")):
        sha256.update(f"{part}\n".encode())
    sha256.update(repr(read_environment_settings(name, variables)).encode())
    code = [file for folder in ("flows", "blocks") for file in (ROOT / folder).rglob("*.py")]
    for file in sorted([*code, ROOT / "prefect.yaml", Path(__file__)]):
        sha256.update(f"{file.relative_to(ROOT)}\n".encode() + bytes.fromhex(file_digest(file)))
    return sha256.hexdigest()


def _is_deployed(name: str) -> bool:
    """Whether the server has the environment and every deployment of `prefect.yaml`."""
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    with get_client(sync_client=True) as client:
        known = {deployment.name for deployment in client.read_deployments()}
    if not {deployment["name"] for deployment in declared} <= known:
        return False
    try:
        Environment.load(name)
    except ValueError:
        return False
    return True

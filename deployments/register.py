"""Register an environment's blocks with Prefect, and deploy the flows."""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import prefect
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

from blocks.common.errors import Rejected
from blocks.environment import Environment
from blocks.environment_settings import MACHINE_FOLDER, read_settings, read_trusted_settings
from deployments.automations import save_automations
from deployments.environment_files import environment_file
from deployments.state import trust_folder
from runtime.digests import file_digest
from runtime.files import write_text_atomically

ROOT = Path(__file__).resolve().parent.parent
WORK_POOL, MAX_RUNS = "local", 4
"""The work pool, and how many of its flow runs run at once."""


def read_environment_settings(name: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """Return `deployments/environments/<name>.toml` with each `${VARIABLE}` filled in.

    Raises:
        NotFound: there is no such file.
        Rejected: a port is missing; the message names it.
        MissingVariable: a variable is not set.
    """
    return read_settings(environment_file(name, ROOT), variables)


def register_environment(name: str, variables: Mapping[str, str]) -> Environment:
    """Save the environment's blocks, and its trust file; see `save_environment`."""
    return save_environment(name, read_environment_settings(name, variables), trust_folder())


def save_environment(name: str, settings: Mapping[str, Any], folder: Path) -> Environment:
    """Save an environment and the block of each of its adapters, replacing existing ones, and its trust file.

    Args:
        name: the environment's name.
        settings: its settings, as in a file of `deployments/environments`.
        folder: the folder of the trust file.

    Raises:
        Rejected: a setting is not valid; or this machine's administrator has stored another trust file in
            `MACHINE_FOLDER`, so that every run here would be refused.
    """
    environment = Environment.from_settings(name, settings)
    adapters = list(environment.adapters())
    if not MACHINE_FOLDER.exists():
        write_trust_file(folder / f"{name}.toml", settings)
    elif read_trusted_settings(name) != settings:
        fixed = MACHINE_FOLDER / f"{name}.toml"
        raise Rejected(f"{fixed} has other settings; first: python -m ratchet trust write {name} --output {fixed}")
    for adapter in adapters:
        adapter.save(name, overwrite=True)
    environment.save(name, overwrite=True)
    return environment


def write_trust_file(path: Path, settings: Mapping[str, Any]) -> None:
    """Write a trust file: every setting as it is now, without variables. Only its owner may read it (mode 0600).

    Raises:
        Rejected: a setting is not valid, or cannot be written as TOML.
        OSError: the file cannot be written.
    """
    Environment.from_settings(path.stem, settings)
    tables = {key: value for key, value in settings.items() if isinstance(value, dict)}
    lines = [_toml_pair(key, value) for key, value in settings.items() if key not in tables]
    for table, values in tables.items():
        lines += ["", f"[{table}]", *(_toml_pair(key, value) for key, value in values.items())]
    text = "\n".join([f"# The settings of {path.stem} that this machine trusts (docs/approvals.md).", *lines, ""])
    if tomllib.loads(text) != settings:
        raise Rejected(f"a setting of {path.stem} cannot be written as TOML")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_text_atomically(path, text, mode=0o600)


def _toml_pair(key: str, value: Any) -> str:
    return f"{key if re.fullmatch(r'[A-Za-z0-9_-]+', key) else _toml(key)} = {_toml(value)}"


def _toml(value: Any) -> str:
    """Return a value as inline TOML, whose texts and numbers are those of JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(_toml_pair(key, part) for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


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
    except (ValueError, RuntimeError):  # it is not registered, or an earlier release did
        return False
    return True

"""Inventory of installed packages and model files, for evidence packs and reproduction."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from runtime.digests import text_digest
from tasks.shared.models import ROOT
from tasks.shared.programs import environment_without_credentials
from tasks.shared.rules.refusal import Refusal

LOCK_FILE = ROOT / "requirements" / "requirements.lock"
"""The lock file that `make setup` installs."""


def installed_packages() -> dict[str, str]:
    """Return the versions of all installed packages, by name."""
    found = {str(each.metadata["Name"]).lower().replace("_", "-"): each.version for each in distributions()}
    return dict(sorted(found.items()))


def bill_of_materials(scratch: Path) -> dict[str, Any]:
    """Return the bill of materials of this interpreter as CycloneDX; made once for each set of packages.

    Raises Refusal with the end of the output when cyclonedx-bom fails.
    """
    packages = text_digest(json.dumps(installed_packages()))
    cached = scratch / "sbom" / f"{packages[:32]}.json"
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        beside = cached.with_suffix(f".{os.getpid()}")
        options = ["--output-format", "JSON", "--spec-version", "1.6", "--output-reproducible", "--no-validate"]
        command = [sys.executable, "-m", "cyclonedx_py", "environment", *options, "-o", str(beside), sys.executable]
        done = subprocess.run(
            command, env=environment_without_credentials(), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Refusal(
                "the bill of materials cannot be made",
                where="cyclonedx_py environment",
                value=done.stderr[-300:],
                remedy="Install cyclonedx-bom: make setup.",
            )
        beside.replace(cached)
    return dict(json.loads(cached.read_text()))


def install_lock_file(lock: Path, work: Path) -> str:
    """Install a lock file into a new virtual environment, and return its Python.

    Raises Refusal with the end of the installer's output when it fails.
    """
    uv, python = Path(sys.executable).with_name("uv"), work / "venv" / "bin" / "python"
    steps = [
        [str(uv), "venv", "--quiet", "--python", sys.executable, str(work / "venv")],
        [str(uv), "pip", "sync", "--quiet", "--system-certs", "--python", str(python), "--require-hashes", str(lock)],
    ]
    for step in steps:
        done = subprocess.run(step, env=environment_without_credentials(), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Refusal("the lock file cannot be installed", where="requirements.lock", value=done.stderr[-300:])
    return str(python)


def recorded_inputs(training: dict[str, Any]) -> dict[str, str]:
    """Return the recorded versions of Python, platform and packages of a training, by name."""
    return {"Python": training["python"], "platform": training["platform"], **training["packages"]}


def current_inputs(python: str) -> dict[str, str]:
    """Return the versions of Python, platform and packages of this process, or of the given Python's environment."""
    packages = installed_packages()
    if python:
        code = "import json, tasks.shared.inventory as i; print(json.dumps(i.installed_packages()))"
        done = subprocess.run(
            [python, "-c", code], cwd=ROOT, env=environment_without_credentials(), capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        packages = json.loads(done.stdout)
    return {"Python": platform.python_version(), "platform": platform.platform(), **packages}

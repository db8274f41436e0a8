"""The embedded stack as a user has it: started once, from a copy of the checkout with a few more models."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.stack import Stack, down, use

ROOT = Path(__file__).resolve().parents[1]
COPIES = ("alpha", "beta", "gamma", "sampled", "checked", "trained", "judged", "asked", "deployed", "taken")
"""Models like churn under other names, so that no test needs what another one left."""


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of this checkout, committed, to which only folders below `models/` were added."""
    copy = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(lambda name: (ROOT / name).exists(), listed.stdout.splitlines()):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    shutil.copytree(ROOT / "tests" / "data" / "diamonds", copy / "models" / "diamonds")
    for name in COPIES:
        shutil.copytree(copy / "models" / "churn", copy / "models" / name)
        rules = copy / "models" / name / "model.yaml"
        rules.write_text(
            rules.read_text().replace("name: churn", f"name: {name}").replace("dataset: churn", f"dataset: {name}")
        )
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    for command in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "-m", "a team's copy"]):
        subprocess.run(["git", *command], cwd=copy, check=True, capture_output=True)
    return copy


@pytest.fixture(scope="session")
def stack(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start the stack with `deployments.stack up` in the copy, point this process at it, and stop it in the end."""
    state = tmp_path_factory.mktemp("state")
    before = dict(os.environ)
    command = [sys.executable, "-m", "deployments.stack", "up"]
    done = subprocess.run(
        command, cwd=checkout, env={**before, "RATCHET_STATE": str(state)}, capture_output=True, text=True, check=False
    )
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        yield use(state)
    finally:
        down(state)
        os.environ.clear()
        os.environ.update(before)

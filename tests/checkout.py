"""A copy of this checkout with additional models, as a team would have it, and the stack started from it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def copy_checkout(
    to: Path,
    like_churn: Iterable[str] = (),
    more: Iterable[Path] = (),
    changed: Mapping[str, Mapping[str, str]] | None = None,
) -> Path:
    """Copy the files that git tracks or would add, add only folders below `models/`, and commit everything.

    Args:
        to: an empty folder.
        like_churn: names of models that are copies of churn, each with its own data set.
        more: model folders to copy unchanged.
        changed: replacements in the `model.yaml` of some of the copies: by name, old text and new.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(lambda name: (ROOT / name).exists(), listed.stdout.splitlines()):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to / name)
    for folder in more:
        shutil.copytree(folder, to / "models" / folder.name)
    for name in like_churn:
        shutil.copytree(to / "models" / "churn", to / "models" / name)
        rules = to / "models" / name / "model.yaml"
        renamed = rules.read_text().replace("name: churn", f"name: {name}")
        renamed = renamed.replace("dataset: churn", f"dataset: {name}")
        for old, new in (changed or {}).get(name, {}).items():
            renamed = renamed.replace(old, new)
        rules.write_text(renamed)
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    for command in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "-m", "a team's copy"]):
        subprocess.run(["git", *command], cwd=to, check=True, capture_output=True)
    return to


def start_stack(checkout: Path, state: Path) -> None:
    """Run `ratchet up` in the copy, with its state in a separate folder."""
    command = [sys.executable, "-m", "ratchet", "up"]
    environment = {**os.environ, "RATCHET_STATE": str(state)}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

"""The README names what there is, all of it, and nothing else."""

import re
import subprocess
from pathlib import Path

import yaml

from tests.checkout import ROOT

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def test_the_table_of_deployments_is_that_of_prefect_yaml() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    there = {f"{Path(d['entrypoint'].partition(':')[0]).stem}/{d['name']}" for d in deployments}
    assert set(re.findall(r"^\| `([a-z_]+/[a-z-]+)` \|", README, re.MULTILINE)) == there


def test_every_make_command_that_the_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\b", README.replace("git and make.", "")))
    assert named - targets == set()
    assert {"demo", "test", "up", "down", "approve", "reject", "bench"} <= named


def test_every_file_that_the_readme_links_to_or_names_exists() -> None:
    links = set(re.findall(r"\]\(([a-z][^)#:]*)\)", README))
    named = set(re.findall(r"`((?:tests|docs|deployments|tasks|flows)/[\w./-]+\.(?:py|md|toml))`", README))
    assert links | named
    assert {name for name in links | named if not (ROOT / name).exists()} == set()


def test_every_python_module_that_the_readme_runs_has_help() -> None:
    modules = set(re.findall(r"`python -m ([\w.]+)", README))
    places = {name: ROOT / name.replace(".", "/") for name in modules}
    assert {
        n for n, p in places.items() if not (p.with_suffix(".py").exists() or (p / "__main__.py").exists())
    } == set()


def test_no_path_of_a_machine_is_committed() -> None:
    home = str(Path.home()) + "/"
    listed = subprocess.run(
        ["git", "grep", "-lF", "-e", home, "-e", f"{ROOT}/"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert listed.stdout == ""

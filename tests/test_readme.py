"""The README names the commands, deployments and files that exist, and all of them."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

from tests.checkout import ROOT
from tests.fixtures.command_line import commands

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
COMMANDS = commands()
GROUPS = {words[0] for words in COMMANDS if len(words) == 2}


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


def test_every_command_that_is_named_exists() -> None:
    texts = subprocess.run(
        ["git", "grep", "-hoE", r"python -m ratchet [a-z][a-z -]*", "--", ".", ":!tests", ":!docs/cli.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    named = {tuple(text.split()[3:]) for text in texts.stdout.splitlines()}
    assert len(named) > 20
    assert {words for words in named if words[: 2 if words[0] in GROUPS else 1] not in COMMANDS} == set()


def test_every_command_is_documented_and_the_list_is_current() -> None:
    command = [sys.executable, "-m", "typer", "ratchet.__main__", "utils", "docs", "--name", "python -m ratchet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    said = f"docs/cli.md is not current; write it anew: {shlex.join([*command[1:], '--output', 'docs/cli.md'])}"
    assert (ROOT / "docs" / "cli.md").read_text().strip() == done.stdout.strip(), said
    assert {words for words in COMMANDS if f"`python -m ratchet {' '.join(words)}`" not in done.stdout} == set()


def test_no_path_of_a_machine_is_committed() -> None:
    home = str(Path.home()) + "/"
    listed = subprocess.run(
        ["git", "grep", "-lF", "-e", home, "-e", f"{ROOT}/"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert listed.stdout == ""

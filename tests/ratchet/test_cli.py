"""The command line: every command has help for each option, starts quickly, and reports an error in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ratchet.commands.group import Group
from tasks.shared.rules.refusal import Refusal
from tests.checkout import ROOT
from tests.fixtures.command_line import commands, ratchet

HEAVY = ("prefect", "mlflow", "pandas")
IMPORTED = f"""
import sys
from ratchet.__main__ import app
try:
    app(sys.argv[1:], prog_name="ratchet")
finally:
    print("imported:", *(name for name in {HEAVY} if name in sys.modules))
"""


def ran(*arguments: str, **variables: str) -> str:
    """Return the output of a separate process."""
    command = [sys.executable, "-c", IMPORTED, *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("arguments", [["--help"], ["down"], ["status"], ["gateway", "--help"]], ids=" ".join)
def test_what_must_be_quick_imports_nothing_that_is_heavy(arguments: list[str], tmp_path: Path) -> None:
    assert ran(*arguments, RATCHET_STATE=str(tmp_path)).splitlines()[-1] == "imported:"


def test_the_shell_completes_commands_and_imports_nothing_that_is_heavy() -> None:
    said = ran(_RATCHET_COMPLETE="complete_bash", COMP_WORDS="ratchet approvals re", COMP_CWORD="2")
    assert said.splitlines() == ["reject", "imported:"]


@pytest.mark.parametrize("words", sorted(commands()), ids=" ".join)
def test_every_command_has_help_and_so_has_each_option(words: tuple[str, ...]) -> None:
    assert ratchet(*words, "--help").exit_code == 0
    command = commands()[words]
    assert command.help
    assert [each.name for each in command.params if not each.help] == []


@pytest.mark.slow
def test_the_gateway_s_commands_find_the_running_stack_and_a_variable_that_is_set_counts_more(tmp_path: Path) -> None:
    ports = {"prefect": 14200, "mlflow": 15000, "endpoints": 18080, "gateway": 18090}
    (tmp_path / "stack.json").write_text(json.dumps({"ports": ports, "processes": []}))
    unset = ("RATCHET_MLFLOW_URL", "RATCHET_ENDPOINTS_URL", "RATCHET_DECISIONS_KEY", "RATCHET_MODELS_KEY")
    program = "from tests.fixtures.command_line import ratchet; import os; print(ratchet('gateway', 'list').output, {})"
    values = "os.environ['RATCHET_MLFLOW_URL'], os.environ['PREFECT_API_URL']"
    variables = {name: value for name, value in os.environ.items() if name not in unset}
    variables |= {"RATCHET_STATE": str(tmp_path), "PREFECT_API_URL": "http://127.0.0.1:1/api"}
    command = [sys.executable, "-c", program.format(values)]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == [
        "nothing has been delivered",
        " http://127.0.0.1:15000 http://127.0.0.1:1/api",
        "",
    ]


def test_the_module_runs_as_a_program() -> None:
    command = [sys.executable, "-m", "ratchet", "runs", "lst"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no such command 'lst'; there are: list, compare, repeat" in done.stderr


def test_what_is_refused_is_one_line_and_what_is_a_mistake_of_ours_is_none() -> None:
    from typer.testing import CliRunner

    group = Group("For the test.", refused=2)

    @group.command()
    def refuse() -> None:
        """Refuse."""
        raise Refusal("it is not so", value=1)

    @group.command()
    def break_down() -> None:
        """Break."""
        raise KeyError("a mistake")

    done = CliRunner().invoke(group, ["refuse"])
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: it is not so")
    assert isinstance(CliRunner().invoke(group, ["break-down"]).exception, KeyError)

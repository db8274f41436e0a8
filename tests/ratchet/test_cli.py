"""The command line: every command has help for each option, starts quickly, and reports an error in one line."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from local.stack import STACK_STOPPED
from ratchet.commands.group import Group
from tasks.shared.rules.refusal import Refusal
from tests.checkout import ROOT
from tests.fixtures.command_line import commands, ratchet
from tests.fixtures.trust_files import trust_local

HEAVY = ("prefect", "mlflow", "pandas")
IMPORTED = f"""
import sys
from ratchet.__main__ import app
try:
    app(sys.argv[1:], prog_name="python -m ratchet")
finally:
    print("imported:", *(name for name in {HEAVY} if name in sys.modules))
"""


def ran(*arguments: str, **variables: str) -> str:
    """Return the output of a separate process."""
    command = [sys.executable, "-c", IMPORTED, *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False).stdout


def with_parameter(name: str) -> Iterator[tuple[str, ...]]:
    """Yield each command with a parameter of this name."""
    yield from (words for words, command in commands().items() if name in {each.name for each in command.params})


@pytest.fixture
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a state folder that does not exist, in a process without the variables of a stack."""
    for name in (
        "RATCHET_MLFLOW_URL",
        "RATCHET_ENDPOINTS_URL",
        "RATCHET_DECISIONS_KEY",
        "RATCHET_RECORDS_KEY",
        "RATCHET_MODELS_KEY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RATCHET_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.mark.parametrize("arguments", [["--help"], ["down"], ["status"], ["gateway", "--help"]], ids=" ".join)
def test_what_must_be_quick_imports_nothing_that_is_heavy(arguments: list[str], tmp_path: Path) -> None:
    assert ran(*arguments, RATCHET_STATE=str(tmp_path)).splitlines()[-1] == "imported:"


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
    unset = (
        "RATCHET_MLFLOW_URL",
        "RATCHET_ENDPOINTS_URL",
        "RATCHET_DECISIONS_KEY",
        "RATCHET_RECORDS_KEY",
        "RATCHET_MODELS_KEY",
    )
    with pytest.MonkeyPatch.context() as patch:
        trust_local(tmp_path, patch)
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
    assert done.stderr.startswith("Usage: python -m ratchet runs ")


def named(words: tuple[str, ...], **names: str) -> Result:
    """Run a command with the given names for some of its parameters, and with all others that it requires."""
    given = list(words)
    for parameter in commands()[words].params:
        if parameter.name in names or parameter.required:
            option = parameter.opts[0]
            given += [*([option] if option.startswith("-") else []), names.get(parameter.name, "x")]
    return ratchet(*given)


@pytest.mark.parametrize("words", sorted(with_parameter("environment")), ids=" ".join)
def test_the_environment_s_name_is_checked_first(words: tuple[str, ...], nothing_runs: Path) -> None:
    refused = named(words, environment="prod")
    assert refused.stderr == "error: there is no environment 'prod'; there are: aws, local\n"
    assert refused.exit_code in (1, 2) and not nothing_runs.exists()


@pytest.mark.parametrize("words", sorted({*with_parameter("model"), *with_parameter("models")}), ids=" ".join)
def test_then_the_model_s_name_is_checked(words: tuple[str, ...], nothing_runs: Path) -> None:
    refused = named(words, model="chrun", models="chrun")
    assert refused.stderr == "error: models/: there is no such model (value: 'chrun'). Did you mean 'churn'?\n"
    assert refused.exit_code in (1, 2) and not nothing_runs.exists()


READ = [
    (("gateway", "serve"), 2), (("gateway", "list"), 2), (("gateway", "notes"), 2), (("gateway", "show", "x"), 2), (("gateway", "redeliver", "x"), 2),
    (("gateway", "missed"), 2), (("accounts", "add", "max"), 2), (("alerts", "list"), 1), (("approvals", "show"), 1),
    (("costs",), 1), (("dashboard", "churn"), 1), (("runs", "list"), 1), (("quarantine", "churn"), 1),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code"), READ, ids=lambda each: each if isinstance(each, int) else " ".join(each))
def test_without_a_stack_all_commands_say_the_same(words: tuple[str, ...], code: int, nothing_runs: Path) -> None:
    refused = ratchet(*words)
    assert (refused.exit_code, refused.stdout, refused.stderr) == (code, "", f"error: {STACK_STOPPED}\n")
    assert not nothing_runs.exists()


@pytest.mark.parametrize("words", [("audit", "verify"), ("audit", "export")], ids=" ".join)
def test_a_ledger_that_does_not_exist_is_not_created_by_reading_it(words: tuple[str, ...], nothing_runs: Path) -> None:
    refused = ratchet(*words)
    assert (refused.exit_code, refused.stdout) == (2, "") and "make up" in refused.stderr
    assert not nothing_runs.exists()


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

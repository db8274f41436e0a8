"""CI pipelines for teams: valid by their vendors' schemas, and the commands in them exist and do what they say.

Not checked offline: CodeBuild's buildspec (no schema on PyPI; its keys are compared with the documented ones here),
and the Jenkinsfile (only a running Jenkins knows its steps; here its brackets and its commands are checked).
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ratchet.commands.machines import changed_models, ci_run_spec
from services.gateway.run_starter import Code
from tests.checkout import ROOT
from tests.fakes.git_hosts import Remote, git
from tests.fixtures.command_line import ratchet
from tests.fixtures.hooks import C2

CI = ROOT / "deployments" / "ci"
FILES = ("github-actions.yml", "gitlab-ci.yml", "Jenkinsfile", "aws/buildspec.yml")


CHECK_JSONSCHEMA = "from check_jsonschema import main; main()"
CFN_LINT = "import sys; from cfnlint.runner import main; sys.exit(main())"


def lint(program: str, *arguments: str) -> str:
    """Return the errors of a linter, "" when it finds none."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


LINTED = {
    "github-actions.yml": (CHECK_JSONSCHEMA, ["--builtin-schema", "vendor.github-workflows"], "runs-on:", "runs_on:"),
    "gitlab-ci.yml": (CHECK_JSONSCHEMA, ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"],
                      "stage: retrain", "stage: [1]"),
    "aws/codepipeline.yaml": (CFN_LINT, [], "PipelineType: V2", "PipelineTyp: V2"),
}  # fmt: skip
"""The linter of each pipeline, and a mistake that it must find."""


@pytest.mark.slow
@pytest.mark.parametrize("name", LINTED)
def test_a_pipeline_is_valid_by_its_vendors_schema(name: str, tmp_path: Path) -> None:
    program, options, right, wrong = LINTED[name]
    text = (CI / name).read_text()
    spoilt = tmp_path / "spoilt.yml"
    spoilt.write_text(text.replace(right, wrong))
    assert spoilt.read_text() != text
    complaints = lint(program, *options, str(CI / name), str(spoilt))
    assert "spoilt.yml" in complaints, "the linter would not have noticed"
    assert Path(name).name not in complaints, complaints


def test_the_buildspec_has_the_documented_keys_and_no_other() -> None:
    spec = yaml.safe_load((CI / "aws" / "buildspec.yml").read_text())
    assert spec.keys() <= {"version", "run-as", "env", "proxy", "batch", "phases", "reports", "artifacts", "cache"}
    assert spec["version"] == 0.2
    assert spec["phases"].keys() <= {"install", "pre_build", "build", "post_build"}
    assert spec["env"].keys() <= {
        "shell",
        "variables",
        "parameter-store",
        "exported-variables",
        "secrets-manager",
        "git-credential-helper",
    }
    assert all(re.fullmatch(r"[\w/-]+:\w+", value) for value in spec["env"]["secrets-manager"].values())


def test_the_jenkinsfile_closes_what_it_opens() -> None:
    text = re.sub(r"'''.*?'''|'[^'\n]*'|//[^\n]*", "", (CI / "Jenkinsfile").read_text(), flags=re.DOTALL)
    open_brackets: list[str] = []
    for sign in re.findall(r"[(){}\[\]]", text):
        if sign in "({[":
            open_brackets.append(sign)
        else:
            assert open_brackets.pop() + sign in {"()", "{}", "[]"}
    assert open_brackets == []
    assert "'" not in text


@pytest.mark.parametrize("name", FILES)
def test_every_pipeline_tests_retrains_what_changed_and_deploys(name: str) -> None:
    text = re.sub(r"\\\n|\n\s+(?=--)", " ", (CI / name).read_text())
    assert "make test" in text
    assert "prefect --no-prompt deploy --all" in text
    calls = re.findall(r"python -m ratchet ci (retrain|pin)\b([^\n]*)", text)
    assert {command for command, _ in calls} == {"retrain", "pin"}
    for command, rest in calls:
        known = set(re.findall(r"--[a-z-]+", ratchet("ci", command, "--help").stdout))
        assert set(re.findall(r"\s(--[a-z]+)\b(?!')", rest)) <= known | {"-1"}


@pytest.mark.parametrize("name", FILES)
def test_no_pipeline_pastes_what_a_stranger_wrote_into_a_shell(name: str) -> None:
    for line in (CI / name).read_text().splitlines():
        command = line.strip().removeprefix("- ")
        if command.startswith(("run:", "sh ", ".venv", "--")):
            assert "${{" not in command, f"{name}: {line}"


@pytest.fixture
def checkout(tmp_path: Path) -> Remote:
    remote = Remote.make(tmp_path)
    remote.push({f"models/{name}/model.yaml": "1" for name in ("churn", "price", "old")} | {"README.md": "1"})
    return remote


def test_the_changed_models_are_those_of_the_branch_alone(checkout: Remote) -> None:
    work = checkout.work
    git("checkout", "--quiet", "-b", "feature", folder=work)
    checkout.push({"models/price/train.py": "2", "models/notes.txt": "x", "README.md": "2"}, "feature")
    commit = checkout.push({"models/old/model.yaml": None, "models/new/model.yaml": "1"}, "feature")
    git("checkout", "--quiet", "main", folder=work)
    checkout.push({"models/churn/train.py": "2"})
    git("checkout", "--quiet", "feature", folder=work)
    assert changed_models("main", commit, work) == ["new", "price"]


def test_the_same_commit_is_the_same_run_however_often_the_pipeline_is_repeated() -> None:
    code = Code(C2, "https://h/x.git", "block:git")
    first, again = (ci_run_spec("churn", code, "development", "local", "ada") for _ in range(2))
    assert first == again
    assert first.environment_variables == {
        "RATCHET_COMMIT": C2,
        "RATCHET_REPOSITORY": "https://h/x.git",
        "RATCHET_CREDENTIALS": "block:git",
    }
    assert first.parameters == {"model": "churn", "tier": "development", "requested_by": "ada", "environment": "local"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["changed", "--commit", "main"],
        ["retrain", "--commit", C2, "--repository", "https://git.example.com/models"],
        ["pin", "--commit", "0" * 40, "--repository", ""],
        ["changed", "--commit", C2, "--base", "nowhere"],
    ],
)
def test_what_is_wrong_is_told_without_a_traceback(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    refused = ratchet("ci", *arguments)
    assert refused.exit_code == 2 and refused.stderr.startswith("error: ")

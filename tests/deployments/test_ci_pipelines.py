"""CI pipelines for teams: valid by their vendors' schemas, and the commands in them exist and do what they say.

Not checked offline: CodeBuild's buildspec (no schema on PyPI; its keys are compared with the documented ones here),
and the Jenkinsfile (only a running Jenkins knows its steps; here its brackets and its commands are checked).
"""

import re
import subprocess
import sys
from collections.abc import Callable
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
FILES = ("github-actions.yml", "gitlab-ci.yml", "Jenkinsfile", "Jenkinsfile.deploy", "aws/buildspec.yml")


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
    assert spec["env"].keys() == {"shell"}, "a secret belongs to the project that needs it, not to both"


@pytest.mark.parametrize("name", ["Jenkinsfile", "Jenkinsfile.deploy"])
def test_a_jenkinsfile_closes_what_it_opens(name: str) -> None:
    text = re.sub(r"//[^\n]*|'''.*?'''|'[^'\n]*'", "", (CI / name).read_text(), flags=re.DOTALL)
    open_brackets: list[str] = []
    for sign in re.findall(r"[(){}\[\]]", text):
        if sign in "({[":
            open_brackets.append(sign)
        else:
            assert open_brackets.pop() + sign in {"()", "{}", "[]"}
    assert open_brackets == []
    assert "'" not in text


@pytest.mark.parametrize(
    "names",
    [("github-actions.yml",), ("gitlab-ci.yml",), ("Jenkinsfile", "Jenkinsfile.deploy"), ("aws/buildspec.yml",)],
)
def test_every_pipeline_tests_retrains_what_changed_and_deploys(names: tuple[str, ...]) -> None:
    text = re.sub(r"\\\n|\n\s+(?=--)", " ", "\n".join((CI / name).read_text() for name in names))
    assert "make test" in text
    assert "prefect --no-prompt deploy --all" in text
    calls = re.findall(r"python -m ratchet ci (retrain|pin)\b([^\n]*)", text)
    assert {command for command, _ in calls} == {"retrain", "pin"}
    for command, rest in calls:
        known = set(re.findall(r"--[a-z-]+", ratchet("ci", command, "--help").stdout))
        assert set(re.findall(r"\s(--[a-z]+)\b(?!')", rest)) <= known | {"-1"}


def github_problems(text: str) -> list[str]:
    """Return what a fork or a branch could do with a secret or a token of the workflow."""
    workflow = yaml.safe_load(text)
    problems = [f"not pinned: {used}" for used in re.findall(r"uses: (.+)", text)
                if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used)]  # fmt: skip
    problems += ["runs for forks with secrets"] * bool(re.search(r"^\s+pull_request_target:", text, re.MULTILINE))
    problems += ["the default token may write"] * (workflow["permissions"] != {"contents": "read"})
    environments: dict[str, list[str]] = {}
    for name, job in workflow["jobs"].items():
        condition, steps = str(job.get("if", "")), job["steps"]
        if "secrets." in str(job):
            own = "pull_request.head.repo.full_name == github.repository" in condition
            main = "github.event_name == 'push' && github.ref == 'refs/heads/main'" in condition
            problems += [] if own or main else [f"{name}: forks reach the secrets"]
            environments.setdefault(str(job.get("environment", "none")), []).append("main" if main else "branch")
            problems += [f"{name}: every step has the secrets"] * ("secrets." in str(job.get("env", "")))
        checkouts = [step for step in steps if "actions/checkout@" in step.get("uses", "")]
        kept = [step for step in checkouts if step.get("with", {}).get("persist-credentials") is not False]
        problems += [f"{name}: the token stays in the clone"] * len(kept)
        problems += [f"{name}: code of the branch beside a token that writes"] * (
            bool(checkouts) and "write" in str(job.get("permissions", ""))
        )
    if environments != {"development": ["branch"], "production": ["main"]}:
        problems.append(f"branches and production share secrets: {environments}")
    return problems


def gitlab_problems(text: str) -> list[str]:
    """Return what a fork or a branch could do with a variable of the pipeline."""
    pipeline = yaml.safe_load(text)
    problems = (
        [] if re.fullmatch(r".+@sha256:[0-9a-f]{64}", pipeline["default"]["image"]) else ["the image is not pinned"]
    )
    own = '$CI_PIPELINE_SOURCE == "merge_request_event" && $CI_MERGE_REQUEST_SOURCE_PROJECT_ID == $CI_PROJECT_ID'
    main = '$CI_PIPELINE_SOURCE == "push" && $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH'
    for name, environment, rule in (("retrain", "development", own), ("deploy", "production", main)):
        used = pipeline[name].get("environment")
        problems += [f"{name}: not the variables of {environment}"] * (
            (used["name"] if isinstance(used, dict) else used) != environment
        )
        problems += [f"{name}: runs for others"] * (pipeline[name]["rules"] != [{"if": rule}])
    return problems + ["a token of the team is used"] * bool(re.search(r"_TOKEN\b", text))


def jenkins_problems(text: str) -> list[str]:
    """Return what a fork or a branch could do with a credential; `text` is both files, the deploying one last."""
    changes, _, deploying = text.partition("// A pipeline job (not multibranch)")
    used = [set(re.findall(r"credentials\('([^']+)'\)", part)) for part in (changes, deploying)]
    problems = ["branches and production share credentials"] * bool(used[0] & used[1] or not all(used))
    problems += ["a branch has a credential of production"] * any("production" in each for each in used[0])
    for stage in re.split(r"(?=stage\()", changes):
        if "credentials(" in stage and "env.CHANGE_FORK == null" not in stage:
            problems.append("forks reach the credentials")
    labels = [re.findall(r"agent \{ label '(\w+)' \}", part) for part in (changes, deploying)]
    return problems + ["agents are shared"] * (labels != [["untrusted"], ["production"]] or "agent any" in text)


def aws_problems(text: str) -> list[str]:
    """Return what the project that tests could read of production, or change of what that builds."""
    pipeline = yaml.load(text, Loader=CloudFormation)  # noqa: S506  (a safe loader, with the short forms of functions)
    problems = []
    for name, environment in (("Test", "development"), ("Deploy", "production")):
        project, role = pipeline["Resources"][name], str(pipeline["Resources"].get(f"{name}Role"))
        secrets = {each["Value"].split(":")[0] for each in project["Properties"]["Environment"]["EnvironmentVariables"]
                   if each.get("Type") == "SECRETS_MANAGER"}  # fmt: skip
        problems += [f"{name}: secrets of {secrets}"] * (secrets != {f"ratchet/prefect-{environment}"})
        problems += [f"{name}: another role"] * (project["Properties"]["ServiceRole"] != f"{name}Role.Arn")
        readable = re.findall(r"secret:([^'\"]+)", role)
        problems += [f"{name}: reads {readable}"] * (readable != [f"ratchet/prefect-{environment}-??????"])
        policy = pipeline["Resources"].get(f"{name}Role", {}).get("Properties", {}).get("Policies", [{}])[0]
        statements = policy.get("PolicyDocument", {}).get("Statement", [])
        written = [each["Resource"] for each in statements if "s3:PutObject" in each["Action"]]
        own = {"Test": ["${Artifacts.Arn}/*/Report/*"], "Deploy": []}
        problems += [f"{name}: writes {written}"] * (written != own[name])
        problems += [f"{name}: any account may use the role"] * ("aws:SourceAccount" not in role)
    return problems


class CloudFormation(yaml.SafeLoader):
    """Reads the short forms of CloudFormation's functions as their arguments."""


CloudFormation.add_multi_constructor("!", lambda loader, _, node: loader.construct_scalar(node))  # type: ignore[no-untyped-call]

GUARDED: dict[str, tuple[Callable[[str], list[str]], tuple[str, ...], list[tuple[str, str]]]] = {
    "GitHub": (github_problems, ("github-actions.yml",), [
        ("@34e114876b0b11c390a56381ad16ebd13914f8d5 # v4.3.1", "@v4"),
        (" && github.event.pull_request.head.repo.full_name == github.repository", ""),
        (" && github.ref == 'refs/heads/main'", ""),
        ("environment: development", "environment: production"),
        ("persist-credentials: false", "fetch-tags: true"),
        ("on:\n  pull_request:", "on:\n  pull_request_target:"),
        ("    environment: development\n", "    environment: development\n    permissions:\n      contents: write\n"),
        ("permissions:\n  contents: read", "permissions:\n  contents: write"),
        ("    environment: production\n    env:\n", "    environment: production\n    env:\n      A: ${{ secrets.A }}\n"),
    ]),
    "GitLab": (gitlab_problems, ("gitlab-ci.yml",), [
        ("@sha256:a36c", ":a36c"),
        (" && $CI_MERGE_REQUEST_SOURCE_PROJECT_ID == $CI_PROJECT_ID", ""),
        ("name: development", "name: production"),
        ("environment: production", "environment: development"),
        ("    - make test", "    - make test\n    - curl --header \"PRIVATE-TOKEN: $REPORT_TOKEN\" x"),
    ]),
    "Jenkins": (jenkins_problems, ("Jenkinsfile", "Jenkinsfile.deploy"), [
        ("expression { env.CHANGE_FORK == null }", ""),
        ("prefect-development-url", "prefect-production-url"),
        ("agent { label 'untrusted' }", "agent any"),
    ]),
    "AWS": (aws_problems, ("aws/codepipeline.yaml",), [
        ("ratchet/prefect-development:", "ratchet/prefect-production:"),
        ("ratchet/prefect-development-??????", "ratchet/prefect-*"),
        ("${Artifacts.Arn}/*/Report/*", "${Artifacts.Arn}/*"),
        ("!GetAtt TestRole.Arn", "!GetAtt DeployRole.Arn"),
        ("aws:SourceAccount: !Ref AWS::AccountId", "aws:SourceArn: x"),
    ]),
}  # fmt: skip
"""For each host: what a fork or a branch could do, the files, and changes that would let it."""


@pytest.mark.parametrize("host", GUARDED)
def test_no_fork_meets_a_secret_and_no_branch_meets_productions(host: str) -> None:
    problems, names, weakenings = GUARDED[host]
    text = "\n".join((CI / name).read_text() for name in names)
    assert problems(text) == []
    for strong, weak in weakenings:
        assert strong in text
        assert problems(text.replace(strong, weak)), f"{weak!r} in place of {strong!r} would not have been noticed"


@pytest.mark.parametrize("name", FILES)
def test_no_command_line_holds_a_secret(name: str) -> None:
    for line in (CI / name).read_text().splitlines():
        if not line.lstrip().startswith(("#", "//", "PREFECT_", "- Name:")):
            assert not re.search(r"\$\{?(?:PREFECT_API_AUTH_STRING|\w*TOKEN|\w*PASSWORD)", line), f"{name}: {line}"


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

"""The commands `ci`, for CI pipelines, and `sagemaker`, the local SageMaker."""

import json
import urllib.request
from pathlib import Path
from typing import Annotated, Literal

import typer

from local.sagemaker.__main__ import serve
from ratchet.commands.group import Environment, Group, text_or_exit

ci = Group("Commands of the CI templates of deployments/ci.", refused=2)
sagemaker = Group("The local SageMaker, for tests and experiments.", refused=2, also=(ValueError, ImportError))

Commit = Annotated[str, typer.Option(help="The full id of the commit that the pipeline runs for.")]
Base = Annotated[str, typer.Option(help="The branch or commit to compare with.")]
Repository = Annotated[str, typer.Option(help="The URL that workers clone from.")]
Credentials = Annotated[str, typer.Option(help="Name of a token to clone with: block:name or env:NAME.")]

sagemaker.command()(serve)


@ci.command()
def changed(commit: Commit, base: Base = "origin/main") -> str:
    """List the models with changed files, one per line."""
    from ratchet.ci import changed_models, checked_commit

    return "\n".join(changed_models(base, checked_commit(commit)))


@ci.command()
def retrain(
    commit: Commit,
    base: Base = "origin/main",
    branch: Annotated[str, typer.Option(help="The branch of the commit, for the report.")] = "main",
    repository: Repository = "",
    credentials: Credentials = "",
    tier: Annotated[
        Literal["development", "staging", "full"], typer.Option(help="How much data to train on.")
    ] = "development",
    by: Annotated[str, typer.Option(help="The name of the requester, who may not approve.")] = "continuous integration",
    minutes: Annotated[float, typer.Option(help="Time limit of each run.")] = 60.0,
    report: Annotated[Path, typer.Option(help="The Markdown file of the report.")] = Path("ratchet-report.md"),
    environment: Environment = "local",
) -> str:
    """Retrain the models with changed files, wait, and write the report; exit code 1 when one is held or fails."""
    from ratchet.ci import changed_models, checked_code, ci_run_spec, retrain
    from services.gateway.rules.changes import RefChange

    code = checked_code(commit, repository, credentials)
    specs = [ci_run_spec(model, code, tier, environment, by) for model in changed_models(base, commit)]
    passed = retrain(RefChange("push", repository, branch, commit, "", by), specs, minutes, report)
    return text_or_exit(f"the report is in {report}", passed)


@ci.command("pin")
def pin_commit(commit: Commit, repository: Repository = "", credentials: Credentials = "") -> None:
    """Make every deployment of prefect.yaml run this commit from now on."""
    from ratchet.ci import checked_code, pin_commit

    pin_commit(checked_code(commit, repository, credentials))


@sagemaker.command("list")
def list_state(
    url: Annotated[str, typer.Option(envvar="AWS_ENDPOINT_URL", help="The address that it printed.")] = "",
) -> str:
    """List the jobs, endpoints and models of a running local SageMaker."""
    from local.sagemaker.page import state_text

    if not url.startswith("http://"):
        raise ValueError(f"--url {url!r} is not an http:// address; give the one that the local SageMaker printed")
    with urllib.request.urlopen(f"{url}/_local/state", timeout=10) as response:  # noqa: S310 - http, checked above
        return state_text(json.load(response))

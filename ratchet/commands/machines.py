"""What other machines run: `ci` for pipelines, `sagemaker` for AWS on this one."""

import json
import urllib.request
from pathlib import Path
from typing import Annotated, Literal

import typer

from local.sagemaker.__main__ import serve
from ratchet.commands.group import Environment, Group, judged

ci = Group("What the pipelines of deployments/ci call.", refused=2)
sagemaker = Group("A SageMaker on this machine, for tests and tries.", refused=2, also=(ValueError, ImportError))

Commit = Annotated[str, typer.Option(help="The whole id of the commit that the pipeline is about.")]
Base = Annotated[str, typer.Option(help="What it is compared with.")]
Repository = Annotated[str, typer.Option(help="Where workers clone it from.")]
Credentials = Annotated[str, typer.Option(help="Name of a token to clone with: block:name or env:NAME.")]

sagemaker.command()(serve)


@ci.command()
def changed(commit: Commit, base: Base = "origin/main") -> str:
    """List the models that differ, a line each."""
    from ratchet.ci import changed_models, checked_commit

    return "\n".join(changed_models(base, checked_commit(commit)))


@ci.command()
def retrain(
    commit: Commit,
    base: Base = "origin/main",
    branch: Annotated[str, typer.Option(help="Its branch, for the report.")] = "main",
    repository: Repository = "",
    credentials: Credentials = "",
    tier: Annotated[
        Literal["development", "staging", "full"], typer.Option(help="How much data to train on.")
    ] = "development",
    by: Annotated[str, typer.Option(help="Who asks; that person may not approve.")] = "continuous integration",
    minutes: Annotated[float, typer.Option(help="Give a run so long.")] = 60.0,
    report: Annotated[Path, typer.Option(help="Where the Markdown goes.")] = Path("ratchet-report.md"),
    environment: Environment = "local",
) -> str:
    """Retrain the models that differ, wait, and write the report; exit code 1 when one is held or fails."""
    from ratchet.ci import changed_models, checked_code, ci_run_spec, retrain
    from services.gateway.rules.changes import RefChange

    code = checked_code(commit, repository, credentials)
    orders = [ci_run_spec(model, code, tier, environment, by) for model in changed_models(base, commit)]
    good = retrain(RefChange("push", repository, branch, commit, "", by), orders, minutes, report)
    return judged(f"the report is in {report}", good)


@ci.command()
def pin_commit(commit: Commit, repository: Repository = "", credentials: Credentials = "") -> None:
    """Let every deployment of prefect.yaml run the commit from now on."""
    from ratchet.ci import checked_code, pin_commit

    pin_commit(checked_code(commit, repository, credentials))


@sagemaker.command("list")
def list_state(
    url: Annotated[str, typer.Option(envvar="AWS_ENDPOINT_URL", help="Where it runs, as it printed.")] = "",
) -> str:
    """List its jobs, endpoints and models."""
    from local.sagemaker.page import state_text

    if not url.startswith("http://"):
        raise ValueError(f"--url {url!r} is no http:// address; give the one that the local SageMaker printed")
    with urllib.request.urlopen(f"{url}/_local/state", timeout=10) as answer:  # noqa: S310 - http, checked above
        return state_text(json.load(answer))

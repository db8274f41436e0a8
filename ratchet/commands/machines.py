"""The commands `ci`, which all CI templates of deployments/ci use, and `sagemaker`, the local SageMaker."""

import json
import os
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import typer

from blocks.common.errors import Rejected
from deployments.state import ROOT
from local.sagemaker.__main__ import serve
from ratchet.commands.group import Environment, Group, text_or_exit
from runtime.foreign_text import print_text
from tasks.shared.rules.git import commit_id
from tasks.shared.rules.refusal import Refusal

if TYPE_CHECKING:
    from services.gateway.rules.report import RunReport
    from services.gateway.run_starter import Code, FlowRunSpec

ci = Group("Commands of the CI templates of deployments/ci.", refused=2)
sagemaker = Group("The local SageMaker, for tests and experiments.", refused=2, also=(ValueError, ImportError))

Commit = Annotated[str, typer.Option(help="The full id of the commit that the pipeline runs for.")]
Base = Annotated[str, typer.Option(help="The branch or commit to compare with.")]
Repository = Annotated[str, typer.Option(help="The URL that workers clone from.")]
Credentials = Annotated[str, typer.Option(help="Name of a token to clone with: block:name or env:NAME.")]

sagemaker.command()(serve)


@sagemaker.command("list")
def list_state(
    url: Annotated[str, typer.Option(envvar="AWS_ENDPOINT_URL", help="The address that it printed.")] = "",
) -> str:
    """List the jobs, endpoints and models of a running local SageMaker."""
    from local.sagemaker.page import state_text

    if not url.startswith("http://"):
        problem = f"--url {url!r} is not an http:// address" if url else "no address is given"
        raise Rejected(f"{problem}; give --url, or set AWS_ENDPOINT_URL to the address that `sagemaker serve` printed")
    with urllib.request.urlopen(f"{url}/_local/state", timeout=10) as response:  # noqa: S310 - http, checked above
        return state_text(json.load(response))


@ci.command()
def changed(commit: Commit, base: Base = "origin/main") -> str:
    """List the models with changed files, one per line."""
    return "\n".join(changed_models(base, _checked_commit(commit)))


@ci.command()
def retrain(
    commit: Commit,
    repository: Repository,
    base: Base = "origin/main",
    branch: Annotated[str, typer.Option(help="The branch of the commit, for the report.")] = "main",
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
    from services.gateway.rules.changes import RefChange
    from services.gateway.rules.report import commit_state, run_markdown

    code = _checked_code(commit, repository, credentials)
    specs = [ci_run_spec(model, code, tier, environment, by) for model in changed_models(base, commit)]
    views = [_run_to_end(spec, minutes) for spec in specs]
    change = RefChange("push", repository, branch, commit, "", by)
    report.write_text("\n".join(run_markdown(change, view) for view in views) or "No model has changed.\n", "utf-8")
    return text_or_exit(f"the report is in {report}", all(commit_state(view) == "success" for view in views))


@ci.command("pin")
def pin_commit(commit: Commit, repository: Repository, credentials: Credentials = "") -> None:
    """Make every deployment of prefect.yaml run this commit from now on."""
    code = _checked_code(commit, repository, credentials)
    import yaml
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentUpdate

    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    names = {f"{Path(each['entrypoint'].partition(':')[0]).stem}/{each['name']}" for each in declared}
    with get_client(sync_client=True) as client:
        for name in sorted(names):
            deployment = client.read_deployment_by_name(name)
            variables = dict(deployment.job_variables or {})
            variables["env"] = {**dict(variables.get("env") or {}), **code.variables()}
            client.update_deployment(deployment.id, DeploymentUpdate(job_variables=variables))
            print_text(f"{name} runs {code.commit[:12]}")


def changed_models(base: str, commit: str, root: Path = ROOT) -> list[str]:
    """Return the models with a file that differs between `commit` and its merge base with `base`; sorted.

    Raises:
        PortError: git does not have one of the two, for example in a shallow clone.
    """
    from blocks.common.git import git
    from tasks.shared.models import model_names

    listed = git(
        "diff", "--name-only", "--no-renames", "-z", values=[f"{base}...{commit}"], paths=["models"], folder=root
    )
    parts = (path.decode(errors="replace").split("/") for path in listed.split(b"\0") if path)
    return sorted({part[1] for part in parts if len(part) > 2} & set(model_names(root)))


def _checked_code(commit: str, repository: str, credentials: str) -> "Code":
    """Return the code that workers run. Raises Refusal when a part of it or the Prefect server is not given."""
    from services.gateway.run_starter import Code

    if not repository or not os.environ.get("PREFECT_API_URL"):
        raise Refusal("needs a repository, and the variable PREFECT_API_URL", where="ci")
    return Code(_checked_commit(commit), repository, credentials)


def _checked_commit(commit: str) -> str:
    if not commit_id(commit, "--commit"):
        raise Refusal("zeros are the id of no commit", where="--commit", value=commit)
    return commit


def ci_run_spec(model: str, code: "Code", tier: str, environment: str, by: str) -> "FlowRunSpec":
    """Return the run to start. Commit, model and tier give its key, so a repeated pipeline finds the same run."""
    from services.gateway.run_starter import FlowRunSpec

    parameters = {"model": model, "tier": tier, "requested_by": by, "environment": environment}
    key, tags = f"ci/{code.commit}/{model}/{tier}", ("ci", f"commit:{code.commit}")
    return FlowRunSpec(key, "retrain/retrain", parameters, code.variables(), tags)


def _run_to_end(spec: "FlowRunSpec", minutes: float) -> "RunReport":
    """Start a run, or find the one with the same key, wait for its end, and return its report."""
    from blocks.inbox.base import StartedRun
    from deployments.flow_runs import is_ended, wait_for_run
    from services.gateway.run_starter import PrefectRunStarter, prefect_run_reader
    from tasks.shared.rules.run_outcomes import end_text

    model, run_id = str(spec.parameters["model"]), PrefectRunStarter().start(spec)
    print_text(f"{model}: run {run_id}", flush=True)
    wait_for_run(UUID(run_id), until=is_ended, seconds=minutes * 60, poll_seconds=5.0)
    view = prefect_run_reader()(StartedRun(run_id, model, spec.deployment))
    if view is None:
        raise Rejected(f"Prefect no longer has the run {run_id}")
    print_text(f"{model}: {end_text(view.outcome, view.state_name, view.message)}", flush=True)
    return view

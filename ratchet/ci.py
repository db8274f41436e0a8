"""Commands shared by all CI templates of deployments/ci, so that none of them contains logic."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate

from blocks.common.errors import Rejected
from blocks.inbox.base import Delivery, StartedRun, UnreportedRun
from deployments.flow_runs import is_ended, wait_for_run
from deployments.git import git
from services.gateway.reporting import prefect_run_reader
from services.gateway.rules.changes import RefChange
from services.gateway.rules.report import RunReport, commit_state, run_markdown
from services.gateway.run_starter import FlowRunSpec, PrefectRunStarter
from services.gateway.settings import ROOT
from tasks.shared.models import model_names
from tasks.shared.rules.git import commit_id
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.run_outcomes import end_text


def changed_models(base: str, commit: str, root: Path = ROOT) -> list[str]:
    """Return the models with a file that differs between `commit` and its merge base with `base`; sorted.

    Raises:
        PortError: git does not have one of the two, for example in a shallow clone.
    """
    listed = git("diff", "--name-only", "--no-renames", "-z", f"{base}...{commit}", "--", "models", folder=root)
    parts = (path.decode(errors="replace").split("/") for path in listed.split(b"\0") if path)
    return sorted({part[1] for part in parts if len(part) > 2} & set(model_names(root)))


@dataclass(frozen=True)
class Code:
    """A commit, the URL that workers clone it from, and the name of a token to clone with ("" for none)."""

    commit: str
    repository: str
    credentials: str = ""

    def variables(self) -> dict[str, str]:
        """Return the variables that make a run use the code of the commit; see deployments/pull.py."""
        variables = {"RATCHET_COMMIT": self.commit, "RATCHET_REPOSITORY": self.repository}
        return {**variables, "RATCHET_CREDENTIALS": self.credentials} if self.credentials else variables


def checked_code(commit: str, repository: str, credentials: str) -> Code:
    """Return the code that workers run.

    Raises:
        Refusal: `commit` is not a full commit id, or the repository or the Prefect server is not given.
    """
    if not repository or not os.environ.get("PREFECT_API_URL"):
        raise Refusal("needs --repository and the variable PREFECT_API_URL", where="ci")
    return Code(checked_commit(commit), repository, credentials)


def checked_commit(commit: str) -> str:
    """Return the commit. Raises Refusal when it is not a full commit id."""
    if not commit_id(commit, "--commit"):
        raise Refusal("is not a commit id", where="--commit", value=commit)
    return commit


def ci_run_spec(model: str, code: Code, tier: str, environment: str, by: str) -> FlowRunSpec:
    """Return the run to start. Commit, model and tier give its key, so a repeated pipeline finds the same run."""
    parameters = {"model": model, "tier": tier, "requested_by": by, "environment": environment}
    key, tags = f"ci/{code.commit}/{model}/{tier}", ("ci", f"commit:{code.commit}")
    return FlowRunSpec(key, "retrain/retrain", parameters, code.variables(), tags)


def retrain(change: RefChange, orders: list[FlowRunSpec], minutes: float, report: Path) -> bool:
    """Retrain models one after the other, write the report, and return whether no run was held or failed."""
    views: list[RunReport] = []
    for order in orders:
        model, run_id = str(order.parameters["model"]), PrefectRunStarter().start(order)
        print(f"{model}: run {run_id}", flush=True)
        wait_for_run(UUID(run_id), until=is_ended, seconds=minutes * 60, poll_seconds=5.0)
        views.append(_run_view(run_id, model))
        print(f"{model}: {end_text(views[-1].outcome, views[-1].state_name, views[-1].message)}", flush=True)
    told = "\n".join(run_markdown(change, view) for view in views) or "No model has changed.\n"
    report.write_text(told, encoding="utf-8")
    return all(commit_state(view) == "success" for view in views)


def _run_view(run_id: str, model: str) -> RunReport:
    no_delivery = Delivery("", "", "", "", "", "", "", "", datetime.now(UTC))  # this run was started by no delivery
    ui = os.environ.get("PREFECT_UI_URL") or os.environ.get("PREFECT_API_URL", "").removesuffix("/api")
    view = prefect_run_reader(ui)(UnreportedRun(StartedRun(run_id, model, "retrain/retrain"), no_delivery, ""))
    if view is None:
        raise Rejected(f"Prefect no longer has the run {run_id}")
    return view


def pin_commit(code: Code) -> None:
    """Set the commit in the job variables of every deployment of prefect.yaml."""
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    names = {f"{Path(each['entrypoint'].partition(':')[0]).stem}/{each['name']}" for each in declared}
    with get_client(sync_client=True) as client:
        for name in sorted(names):
            deployment = client.read_deployment_by_name(name)
            variables = dict(deployment.job_variables or {})
            variables["env"] = {**dict(variables.get("env") or {}), **code.variables()}
            client.update_deployment(deployment.id, DeploymentUpdate(job_variables=variables))
            print(f"{name} runs {code.commit[:12]}")

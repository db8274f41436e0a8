"""What the pipelines in this folder call, so that none of them has a logic of its own.

`python -m ratchet.ci changed`: the models that differ from `--base`, a line each.
`python -m ratchet.ci retrain`: retrain those on a tier, with the code of `--commit`, against the Prefect server of
`PREFECT_API_URL`; wait; write the report. Fails when one is held, or fails.
`python -m ratchet.ci pin`: let every deployment of prefect.yaml run the code of `--commit` from now on.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import yaml

from blocks.common.errors import PortError, Rejected
from blocks.ledger.inbox import Delivery, StartedRun, Watched
from deployments.git import git
from services.gateway.reporting import look_at
from services.gateway.rules.changes import Change
from services.gateway.rules.report import RunView, commit_state, run_markdown
from services.gateway.settings import ROOT
from services.gateway.starting import PrefectStarter, RunOrder
from tasks.shared.models import model_names
from tasks.shared.rules.git import commit_id
from tasks.shared.rules.refusal import Refusal


def changed_models(base: str, commit: str, root: Path = ROOT) -> list[str]:
    """Return the models of which a file differs between where `commit` left `base`, and `commit`; sorted.

    Raises:
        PortError: git does not know one of the two, as in a shallow clone.
    """
    listed = git("diff", "--name-only", "--no-renames", "-z", f"{base}...{commit}", "--", "models", folder=root)
    parts = (path.decode(errors="replace").split("/") for path in listed.split(b"\0") if path)
    return sorted({part[1] for part in parts if len(part) > 2} & set(model_names(root)))


def code_of(options: argparse.Namespace) -> dict[str, str]:
    """Return the variables that make a run's code that of the commit; see deployments/pull.py."""
    found = {"RATCHET_COMMIT": options.commit, "RATCHET_REPOSITORY": options.repository}
    return {**found, "RATCHET_CREDENTIALS": options.credentials} if options.credentials else found


def ci_order(model: str, options: argparse.Namespace) -> RunOrder:
    """Return the run: the same commit, model and tier is the same run, however often the pipeline is repeated."""
    parameters = {"model": model, "tier": options.tier, "requested_by": options.by, "environment": options.environment}
    key, tags = f"ci/{options.commit}/{model}/{options.tier}", ("ci", f"commit:{options.commit}")
    return RunOrder(key, "retrain/retrain", parameters, code_of(options), tags)


def retrain(options: argparse.Namespace) -> int:
    """Retrain the changed models, one after the other, and write the report."""
    from deployments.runs import ended, follow

    models = changed_models(options.base, options.commit)
    change = Change("push", options.repository, options.branch, options.commit, "", options.by)
    views: list[RunView] = []
    for model in models:
        run_id = PrefectStarter().start(ci_order(model, options))
        print(f"{model}: run {run_id}", flush=True)
        follow(UUID(run_id), until=ended, seconds=options.minutes * 60, poll_seconds=5.0)
        views.append(_view(run_id, model))
        print(f"{model}: {views[-1].state_name}. {views[-1].message}", flush=True)
    report = "\n".join(run_markdown(change, view) for view in views) or "No model has changed.\n"
    options.report.write_text(report, encoding="utf-8")
    return 0 if all(commit_state(view) == "success" for view in views) else 1


def _view(run_id: str, model: str) -> RunView:
    nothing = Delivery("", "", "", "", "", "", "", "", datetime.now(UTC))  # this run was started by no delivery
    ui = os.environ.get("PREFECT_UI_URL") or os.environ.get("PREFECT_API_URL", "").removesuffix("/api")
    view = look_at(ui)(Watched(StartedRun(run_id, model, "retrain/retrain"), nothing, ""))
    if view is None:
        raise Rejected(f"Prefect does not know the run {run_id} any more")
    return view


def pin(options: argparse.Namespace) -> int:
    """Write the commit into the job variables of every deployment of prefect.yaml."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentUpdate

    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    names = {f"{Path(each['entrypoint'].partition(':')[0]).stem}/{each['name']}" for each in declared}
    with get_client(sync_client=True) as client:
        for name in sorted(names):
            found = client.read_deployment_by_name(name)
            variables = dict(found.job_variables or {})
            variables["env"] = {**dict(variables.get("env") or {}), **code_of(options)}
            client.update_deployment(found.id, DeploymentUpdate(job_variables=variables))
            print(f"{name} runs {options.commit[:12]}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns 1 when a model is held or fails, 2 when something is refused."""
    options = _options(arguments)
    try:
        if not commit_id(options.commit, "--commit"):
            raise Refusal("names no commit", where="--commit", value=options.commit)
        if options.command == "changed":
            print("\n".join(changed_models(options.base, options.commit)))
            return 0
        if not options.repository or not os.environ.get("PREFECT_API_URL"):
            raise Refusal("needs --repository and the variable PREFECT_API_URL", where=options.command)
        return retrain(options) if options.command == "retrain" else pin(options)
    except (Refusal, PortError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m ratchet.ci", description=__doc__, formatter_class=raw)
    parser.add_argument("command", choices=["changed", "retrain", "pin"])
    parser.add_argument("--commit", required=True, help="the whole id of the commit that the pipeline is about")
    parser.add_argument("--base", default="origin/main", help="what it is compared with")
    parser.add_argument("--branch", default="main", help="its branch, for the report")
    parser.add_argument("--repository", default="", help="where workers clone it from")
    parser.add_argument("--credentials", default="", help="name of a token to clone with: block:name or env:NAME")
    parser.add_argument("--tier", default="development", choices=["development", "staging", "production"])
    parser.add_argument("--environment", default="local", help="the set of adapters to run on")
    parser.add_argument("--by", default="continuous integration", help="who asks; that person may not approve")
    parser.add_argument("--minutes", type=float, default=60.0, help="give a run so long")
    parser.add_argument("--report", type=Path, default=Path("ratchet-report.md"), help="where the Markdown goes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

"""Verify that deployed versions are reproducible: retrain them from their evidence packs, and compare."""

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.environment import open_environment
from flows.authorization import authorize_run
from flows.options import FLOW_OPTIONS
from flows.outcomes import end_run
from flows.parameters import EnvironmentName, OrderId
from tasks.evidence.reproduction import versions_to_reproduce
from tasks.evidence.tasks import reproduce_version
from tasks.shared.reports import create_table_artifact
from tasks.shared.rules.run_outcomes import Outcome, outcome_words, run_name, versioned


@flow(name="reproduce", flow_run_name="reproduce {model} {version}", **FLOW_OPTIONS)
def reproduce(
    model: str = "",
    version: str = "",
    environment: EnvironmentName = "local",
    fresh_venv: bool = False,
    order: OrderId = "",
) -> State:
    """Retrain promoted versions from their evidence packs alone. The run fails when a result differs.

    Args:
        model: The model's name: a folder below models/. Empty means every deployed model.
        version: A promoted version. Empty means the deployed version.
        environment: The set of adapters to run on: a file in deployments/environments/.
        fresh_venv: Install the pack's lock file into a new virtual environment first, which takes minutes. Otherwise the installed packages are compared with the lock file.
        order: The signed order of whoever starts the run, made by the gateway (docs/actions.md). Empty: nobody proved a name.
    """  # noqa: E501  (the form takes one line a parameter)
    authorize_run("reproduce", model, environment, order)
    versions = versions_to_reproduce(open_environment(environment), model, version)
    if not versions:
        message = "no version serves, so there is nothing to reproduce."
        return end_run("nothing_deployed", message, run_name(model or environment, "nothing deployed"))
    results = [reproduce_version(name, each, environment, fresh_venv) for name, each in versions]
    rows = [
        {
            "model": result.model,
            "version": result.version,
            "verdict": result.verdict,
            "differing inputs": " ".join(result.differing_inputs),
        }
        for result in results
    ]
    create_table_artifact(key="reproduction", table=rows, description="Trained again from the evidence pack")
    message = "; ".join(
        f"{result.model} {result.version}: {result.verdict}. {' '.join(result.differing_inputs)}".strip()
        for result in results
    )
    failed = any(result.verdict in ("different", "not reproducible") for result in results)
    outcome: Outcome = "not_reproduced" if failed else "reproduced"
    what = versioned(*versions[0]) if len(versions) == 1 else f"{len(versions)} versions"
    return end_run(outcome, message, run_name(what, outcome_words(outcome)))

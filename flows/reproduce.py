"""Prove that what serves can be made again: train promoted versions from their evidence packs, and compare."""

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from blocks.environment import open_environment
from flows.parameters import EnvironmentName
from flows.run_log import send_run_log
from tasks.evidence.reproduction import versions_to_reproduce
from tasks.evidence.tasks import reproduce_version


@flow(
    name="reproduce",
    persist_result=True,
    result_serializer="json",
    flow_run_name="reproduce {model} {version}",
    on_running=[send_run_log],
)
def reproduce(
    model: str = "", version: str = "", environment: EnvironmentName = "local", fresh_environment: bool = False
) -> State:
    """Train promoted versions again from their evidence packs alone; the run fails when another model comes of one.

    Args:
        model: The model's name: a folder below models/. Empty takes every model that serves.
        version: A version that was promoted. Empty takes the one that serves.
        environment: The set of adapters to run on: a file in deployments/environments/.
        fresh_environment: Install the pack's lock file into an environment of its own first, which takes minutes. Otherwise what is installed is compared with it.
    """  # noqa: E501  (the form takes one line a parameter)
    versions = versions_to_reproduce(open_environment(environment), model, version)
    if not versions:
        return Completed(name="NothingPromoted", message="No version serves, so there is nothing to reproduce.")
    results = [reproduce_version(name, each, environment, fresh_environment) for name, each in versions]
    rows = [
        {
            "model": result.model,
            "version": result.version,
            "verdict": result.verdict,
            "by": " ".join(result.differing_inputs),
        }
        for result in results
    ]
    create_table_artifact(key="reproduction", table=rows, description="Trained again from the evidence pack")
    message = "; ".join(
        f"{result.model} {result.version}: {result.verdict}. {' '.join(result.differing_inputs)}".strip()
        for result in results
    )
    if any(result.verdict in ("different", "not reproducible") for result in results):
        return Failed(name="NotReproduced", message=message)
    return Completed(name="Reproduced", message=message)

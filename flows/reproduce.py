"""Prove that what serves can be made again: train promoted versions from their evidence packs, and compare."""

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from blocks.environment import open_environment
from flows.parameters import EnvironmentName
from flows.run_log import keep_log
from tasks.evidence.reproduction import promoted
from tasks.evidence.tasks import reproduce_version


@flow(
    name="reproduce",
    persist_result=True,
    result_serializer="json",
    flow_run_name="reproduce {model} {version}",
    on_running=[keep_log],
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
    chosen = promoted(open_environment(environment), model, version)
    if not chosen:
        return Completed(name="NothingPromoted", message="No version serves, so there is nothing to reproduce.")
    done = [reproduce_version(name, each, environment, fresh_environment) for name, each in chosen]
    rows = [
        {"model": it.model, "version": it.version, "verdict": it.verdict, "by": " ".join(it.differs)} for it in done
    ]
    create_table_artifact(key="reproduction", table=rows, description="Trained again from the evidence pack")
    said = "; ".join(f"{it.model} {it.version}: {it.verdict}. {' '.join(it.differs)}".strip() for it in done)
    if any(it.verdict in ("different", "not reproducible") for it in done):
        return Failed(name="NotReproduced", message=said)
    return Completed(name="Reproduced", message=said)

"""Take a model back to the version that served before, in seconds, with no retraining."""

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.parameters import EnvironmentName, ModelName, PersonName, Reason
from flows.run_log import send_run_log
from tasks.dashboard.tasks import update_dashboard
from tasks.release.tasks import rollback_deployment


@flow(
    name="rollback",
    persist_result=True,
    result_serializer="json",
    flow_run_name="{model} back",
    on_running=[send_run_log],
)
def rollback(
    model: ModelName,
    requested_by: PersonName,
    reason: Reason,
    to_version: str = "",
    environment: EnvironmentName = "local",
) -> State:
    """Restore the last version that served healthily before today's, from the ledger and the endpoint's copy.

    Args:
        model: The model's name: a folder below models/.
        requested_by: Who takes it back: a name or e-mail address; recorded in the ledger.
        reason: Why; recorded in the ledger.
        to_version: A version that served once. Empty is the one before today's.
        environment: The set of adapters to run on: a file in deployments/environments/.
    """
    deployment_result = rollback_deployment(
        model, to_version, requested_by, reason, environment, key=f"rollback:{flow_run.id}"
    )
    message = f"Version {deployment_result.version} serves again in place of {deployment_result.replaced_version}, after {deployment_result.seconds:.1f} s"
    update_dashboard(model, environment)
    create_markdown_artifact(key="rollback", markdown=f"**{model}**: {message} at {deployment_result.url}")
    return Completed(name="RolledBack", message=message)

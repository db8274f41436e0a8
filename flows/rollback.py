"""Roll a model back to the previously deployed version, in seconds, without retraining."""

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from flows.authorization import authorize_run
from flows.options import FLOW_OPTIONS
from flows.outcomes import end_run
from flows.parameters import EnvironmentName, ModelName, OrderId, PersonName, Reason
from runtime.foreign_text import Markdown
from tasks.dashboard.tasks import update_dashboard
from tasks.release.registry import registry_problem_text
from tasks.release.tasks import rollback_deployment
from tasks.shared.reports import create_markdown_artifact
from tasks.shared.rules.run_outcomes import run_name, versioned


@flow(name="rollback", flow_run_name="{model} back", **FLOW_OPTIONS)
def rollback(
    model: ModelName,
    requested_by: PersonName,
    reason: Reason,
    to_version: str = "",
    environment: EnvironmentName = "local",
    order: OrderId = "",
) -> State:
    """Restore the last version that was deployed successfully before the current one, from the endpoint's own copy.

    Args:
        model: The model's name: a folder below models/.
        requested_by: Who requests the rollback: a name or e-mail address, recorded in the ledger.
        reason: The reason, recorded in the ledger.
        to_version: A version that was deployed before. Empty is the previous one.
        environment: The set of adapters to run on: a file in deployments/environments/.
        order: The signed order of whoever starts the run, made by the gateway (docs/actions.md). Empty: nobody proved
            a name.
    """
    actor = authorize_run("rollback", model, environment, order, requested_by)
    deployment_result = rollback_deployment(
        model, to_version, actor, reason, environment, key=f"rollback:{flow_run.id}"
    )
    message = (
        f"version {deployment_result.version} serves again in place of {deployment_result.replaced_version}, "
        f"after {deployment_result.seconds:.1f} s"
        f"{registry_problem_text(deployment_result.registry_problem, model, environment)}"
    )
    markdown = Markdown("**{}**: {} at {}").format(model, message, deployment_result.url)
    update_dashboard(model, environment)
    create_markdown_artifact(key="rollback", markdown=markdown)
    return end_run("rolled_back", message, run_name(versioned(model, deployment_result.version), "rolled back"))

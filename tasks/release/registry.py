"""What follows a deployment that the ledger has: the registry's alias and tag, and the alert. Neither can fail it."""

from blocks.environment import Environment
from blocks.records.deployments import Deployment
from blocks.tracking.base import CHAMPION_ALIAS, PROMOTED_TAG
from tasks.approval.rules.actions import Act
from tasks.shared.actions import authenticated_way, refuses_unproved
from tasks.shared.alerts import emit_alert
from tasks.shared.champion import champion_version
from tasks.shared.reports import only_reports


def report_deployment(env: Environment, deployment: Deployment, url: str) -> str:
    """Make the registry agree with the ledger, and emit the alert; return why the registry does not agree, or ""."""
    problem = update_registry(env, deployment.model)
    done = f"Version {deployment.version} is deployed at {url}, approved by {deployment.by}: {deployment.reason}"
    with only_reports("the alert of the deployment"):
        emit_alert(
            env,
            "release.deployed",
            model=deployment.model,
            alert_record_key=f"release:{deployment.id}",
            sentence=done,
            links={"roll back": way_to_roll_back(env, deployment.model)},
        )
    return problem


def way_to_roll_back(env: Environment, model: str) -> str:
    """Return the command that rolls a model back; where names must be proved, where a person signs in to do it."""
    if refuses_unproved(env, Act("rollback", env.name, model)):
        return f"{env.gateway.address}/actions" if env.gateway.address else authenticated_way(env)
    return (
        f"prefect deployment run rollback/rollback -p model={model} -p requested_by=you "
        f'-p reason="why" -p environment={env.name}'
    )


def update_registry(env: Environment, model: str) -> str:
    """Move the alias `champion` to the version that the ledger says is deployed; return why that failed, or "".

    The deployment is done: whatever the registry lacks is said on the dashboard, and `ratchet repair` makes it up.
    """
    with only_reports("the registry's alias of the deployed version") as result:
        tell_registry(env, model, champion_version(env, model))
    return result.problem


def tell_registry(env: Environment, model: str, version: str) -> None:
    """Tag the version as promoted, and move the alias `champion` to it. Raises PortError."""
    tracking = env.tracking()
    tracking.tag_version(model, version, {PROMOTED_TAG: env.name})
    tracking.set_alias(model, CHAMPION_ALIAS, version)


def registry_problem_text(problem: str, model: str, environment: str) -> str:
    """Return a sentence for the end of a run's message, "" without a problem."""
    if not problem:
        return ""
    return f". The registry does not say so yet: {problem}. Run: {repair_command(model, environment)}"


def repair_command(model: str, environment: str) -> str:
    """Return the command that makes endpoint, ledger and registry agree."""
    return f"python -m ratchet repair {model} --environment {environment}"

"""Prefect tasks of release: deploy an approved version, and roll back."""

from prefect import get_run_logger, task

from blocks.endpoints.base import GoldenExample
from blocks.environment import open_environment
from tasks.approval.rules.actions import Actor
from tasks.release.deployment import deploy_approved
from tasks.release.rollback import rollback_version
from tasks.shared.models import load_model
from tasks.shared.records import DeploymentResult, EvaluationResult
from tasks.shared.retries import TASK_OPTIONS


@task(name="deploy", **TASK_OPTIONS)
def deploy(request_id: str, evaluation_result: EvaluationResult, environment: str) -> DeploymentResult:
    """Preflight the approved version in the real server, switch to it, verify it, and record the deployment.

    Raises:
        Refusal: the approval is not valid (missing, expired, about another digest, or the champion has changed).
        Rejected, Corrupt: the version failed preflight or verification. The previous version stays deployed.
    """
    env = open_environment(environment)
    request = env.approvals().get_request(request_id)
    golden = GoldenExample(evaluation_result.golden_request, evaluation_result.golden_predictions)
    result = deploy_approved(env, load_model(request.model), request, golden)
    get_run_logger().info("version %s serves at %s", result.version, result.url)
    return result


@task(name="roll back", **TASK_OPTIONS)
def rollback_deployment(
    model: str, to_version: str, actor: Actor, reason: str, environment: str, key: str
) -> DeploymentResult:
    """Restore an earlier version from the endpoint's own copy, verify it, and record the rollback."""
    done = rollback_version(open_environment(environment), model, to_version, actor=actor, reason=reason, key=key)
    get_run_logger().info("version %s serves again, after %.1f s", done.version, done.seconds)
    return done

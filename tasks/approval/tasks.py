"""Prefect task that requests an approval."""

from datetime import UTC, datetime

from prefect import get_run_logger, task
from prefect.runtime import flow_run

from blocks.environment import open_environment
from tasks.approval.requests import announce_request, gather_evidence, submit_request
from tasks.approval.rules.actions import Actor
from tasks.approval.rules.names import shown_name
from tasks.approval.rules.request_page import request_markdown
from tasks.shared.models import load_model
from tasks.shared.records import EvaluationResult, PendingApproval, TierData, TrainingResult, ValidationResult
from tasks.shared.reports import create_markdown_artifact, only_reports
from tasks.shared.retries import TASK_OPTIONS


@task(name="request approval", **TASK_OPTIONS)
def request_approval(
    model: str,
    data: TierData,
    validation_result: ValidationResult,
    training_result: TrainingResult,
    evaluation_result: EvaluationResult,
    requested_by: str,
    environment: str,
    trigger_reason: str = "",
    requester_authenticated: bool = False,
) -> PendingApproval:
    """Record an approval request in the ledger, show it as an artifact of the flow run, and emit an alert.

    `trigger_reason` says why the run was started; it is "" when a person simply requested the run.
    `requester_authenticated` says whether a signed order proved who requested it.
    """
    env, team_model, now = open_environment(environment), load_model(model), datetime.now(UTC)
    evidence = gather_evidence(
        env, team_model, data, validation_result, training_result, evaluation_result,
        Actor(requested_by, requester_authenticated), trigger_reason, now)  # fmt: skip
    request = submit_request(
        env, team_model, evidence, requested_by, str(flow_run.id or ""), now, authenticated=requester_authenticated
    )
    shown = shown_name(requested_by, authenticated=request.requester_authenticated)
    markdown = request_markdown(evidence, requested_by=shown, expires_at=request.expires_at, digest=request.digest)
    create_markdown_artifact(key="approval-request", markdown=markdown, description=f"Approve {request.id}?")
    with only_reports("the alert that a request waits"):
        announce_request(env, request, trigger_reason)
    get_run_logger().info("request %s waits for a decision until %s", request.id, request.expires_at.isoformat())
    return PendingApproval(
        request_id=request.id, digest=request.digest, expires_at=request.expires_at, request_markdown=markdown
    )

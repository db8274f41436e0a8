"""Prefect task of approval: put the evidence to people as a request."""

from datetime import UTC, datetime, timedelta

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from blocks.approvals.base import ApprovalRequest
from blocks.environment import open_environment
from tasks.approval.requests import approval_link, build_evidence, version_commit
from tasks.approval.review_attachments import store_review_attachments
from tasks.approval.rules.evidence import canonical_json, evidence_digest, request_markdown
from tasks.shared.alerts import emit_alert
from tasks.shared.models import load_model, unapproved_authors
from tasks.shared.records import EvaluationResult, PendingApproval, TierData, TrainingResult, ValidationResult
from tasks.shared.retries import TASK_OPTIONS
from tasks.shared.trust import approval_policy
from tasks.shared.waivers import valid_waivers


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
) -> PendingApproval:
    """Put the evidence into the ledger as a request, and show it as an artifact of the flow run.

    `trigger_reason` is what it was trained in answer to; "" when whoever asked just asked for it.
    """
    env, now = open_environment(environment), datetime.now(UTC)
    policy, code_authors = (
        approval_policy(env, load_model(model).spec),
        unapproved_authors(model, version_commit(env, model, evaluation_result.champion_version)),
    )
    waivers = (
        valid_waivers(env, model, evaluation_result.failed_gates, requested_by, now)
        if evaluation_result.failed_gates
        else ()
    )
    attachments_digest = store_review_attachments(
        env, load_model(model), data, validation_result, training_result, evaluation_result
    )
    evidence = build_evidence(
        model,
        environment,
        data,
        validation_result,
        training_result,
        evaluation_result,
        waivers,
        trigger_reason,
        attachments_digest,
    )
    digest = evidence_digest(evidence)
    request = env.approvals().request_approval(
        ApprovalRequest(
            id=f"{model}-{training_result.version}-{digest[:8]}",
            model=model,
            environment=environment,
            version=training_result.version,
            digest=digest,
            evidence=canonical_json(evidence),
            requested_by=requested_by,
            requested_at=now,
            expires_at=now + timedelta(days=policy.expires_days),
            flow_run_id=str(flow_run.id or ""),
            approvers=policy.approvers,
            four_eyes=policy.four_eyes,
            authors=code_authors,
            approvals=policy.approvals,
            roles=policy.roles,
        )
    )
    markdown = request_markdown(evidence, requested_by=requested_by, expires_at=request.expires_at, digest=digest)
    create_markdown_artifact(key="approval-request", markdown=markdown, description=f"Approve {request.id}?")
    trigger_text = f" It was asked for by {trigger_reason}" if trigger_reason else ""
    emit_alert(
        env, "release.awaiting-approval", model=model, subject_id=request.id, alert_record_key=f"asked:{request.id}",
        sentence=f"Version {request.version} passed and waits for approval until "
                 f"{request.expires_at:%Y-%m-%d %H:%M %Z}.{trigger_text}",
        links={"approve": approval_link(env, request.id)},
    )  # fmt: skip
    get_run_logger().info("request %s waits for a decision until %s", request.id, request.expires_at.isoformat())
    return PendingApproval(
        request_id=request.id, digest=digest, expires_at=request.expires_at, request_markdown=markdown
    )

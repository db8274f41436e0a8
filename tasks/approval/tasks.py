"""Prefect task of approval: put the evidence to people as a request."""

from datetime import UTC, datetime, timedelta

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from blocks.approvals.base import ApprovalRequest
from blocks.environment import open_environment
from tasks.approval.requests import commit_of, gather, where_to_decide
from tasks.approval.review_attachments import keep_exhibits
from tasks.approval.rules.evidence import canonical_json, evidence_digest, request_markdown
from tasks.shared.alerts import tell
from tasks.shared.models import authors, load_model
from tasks.shared.records import Asked, Checked, Judged, TierData, Trained
from tasks.shared.retries import STAGE
from tasks.shared.trust import policy_of
from tasks.shared.waivers import standing_waivers


@task(name="request approval", **STAGE)
def request_approval(
    model: str,
    data: TierData,
    checked: Checked,
    trained: Trained,
    judged: Judged,
    requested_by: str,
    environment: str,
    because: str = "",
) -> Asked:
    """Put the evidence into the ledger as a request, and show it as an artifact of the flow run.

    `because` is what it was trained in answer to; "" when whoever asked just asked for it.
    """
    world, now = open_environment(environment), datetime.now(UTC)
    policy, wrote = policy_of(world, load_model(model).spec), authors(model, commit_of(world, model, judged.champion))
    waivers = standing_waivers(world, model, judged.gates, requested_by, now) if judged.gates else ()
    shown_with_it = keep_exhibits(world, load_model(model), data, checked, trained, judged)
    evidence = gather(model, environment, data, checked, trained, judged, waivers, because, shown_with_it)
    digest = evidence_digest(evidence)
    asked = world.approvals().request_approval(
        ApprovalRequest(
            id=f"{model}-{trained.version}-{digest[:8]}",
            model=model,
            environment=environment,
            version=trained.version,
            digest=digest,
            evidence=canonical_json(evidence),
            requested_by=requested_by,
            requested_at=now,
            expires_at=now + timedelta(days=policy.expires_days),
            flow_run_id=str(flow_run.id or ""),
            approvers=policy.approvers,
            four_eyes=policy.four_eyes,
            authors=wrote,
            approvals=policy.approvals,
            roles=policy.roles,
        )
    )
    shown = request_markdown(evidence, requested_by=requested_by, expires_at=asked.expires_at, digest=digest)
    create_markdown_artifact(key="approval-request", markdown=shown, description=f"Approve {asked.id}?")
    why = f" It was asked for by {because}" if because else ""
    tell(
        world, "release.awaiting-approval", model=model, about=asked.id, key=f"asked:{asked.id}",
        sentence=f"Version {asked.version} passed and waits for approval until "
                 f"{asked.expires_at:%Y-%m-%d %H:%M %Z}.{why}",
        links={"approve": where_to_decide(world, asked.id)},
    )  # fmt: skip
    get_run_logger().info("request %s waits for a decision until %s", asked.id, asked.expires_at.isoformat())
    return Asked(request_id=asked.id, digest=digest, expires_at=asked.expires_at, markdown=shown)

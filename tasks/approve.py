"""Ask a person to decide over exactly this evidence, and record what was decided."""

from datetime import UTC, datetime, timedelta

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from blocks.environment import open_environment
from blocks.ledger.base import ApprovalRequest, Decision, Ledger
from tasks.alerts import tell
from tasks.logic.approve.approval import check_decider
from tasks.logic.approve.evidence import Checks, Evidence, canonical_json, evidence_digest, request_markdown
from tasks.models import load_model
from tasks.records import Asked, Checked, Judged, TierData, Trained
from tasks.retries import STAGE


@task(name="request approval", **STAGE)
def request_approval(
    model: str,
    data: TierData,
    checked: Checked,
    trained: Trained,
    judged: Judged,
    requested_by: str,
    environment: str,
) -> Asked:
    """Put the evidence into the ledger as a request, and show it as an artifact of the flow run."""
    world, policy = open_environment(environment), load_model(model).spec.approval
    evidence = gather(model, environment, data, checked, trained, judged)
    digest, now = evidence_digest(evidence), datetime.now(UTC)
    asked = world.ledger().request_approval(
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
        )
    )
    shown = request_markdown(evidence, requested_by=requested_by, expires_at=asked.expires_at, digest=digest)
    create_markdown_artifact(key="approval-request", markdown=shown, description=f"Approve {asked.id}?")
    tell(
        world, "release.awaiting-approval", model=model, about=asked.id, key=f"asked:{asked.id}",
        sentence=f"Version {asked.version} passed and waits for approval until {asked.expires_at:%Y-%m-%d %H:%M %Z}.",
        links={"approve": f'make approve REQUEST={asked.id} BY=you REASON="why"'},
    )  # fmt: skip
    get_run_logger().info("request %s waits for a decision until %s", asked.id, asked.expires_at.isoformat())
    return Asked(request_id=asked.id, digest=digest, expires_at=asked.expires_at, markdown=shown)


def gather(
    model: str, environment: str, data: TierData, checked: Checked, trained: Trained, judged: Judged
) -> Evidence:
    """Return everything that a decision is about; its digest is what is approved."""
    return Evidence(
        model=model,
        environment=environment,
        version=trained.version,
        model_digest=trained.model_digest,
        commit=trained.commit,
        patch_digest=trained.patch_digest,
        tier=data.tier,
        as_of=data.as_of,
        data_digest=data.data_digest,
        holdout_digest=data.holdout_digest,
        parameters=trained.parameters,
        seed=trained.seed,
        checks=Checks(passed=checked.passed, failed=0),
        metrics=judged.metrics,
        champion_version=judged.champion,
        champion_metrics=judged.champion_metrics,
        verdict=judged.outcome,
        reasons=judged.reasons,
        cost_usd=trained.cost_usd,
        serving_usd_month=trained.serving_usd_month,
    )


def decide(
    ledger: Ledger, request_id: str, *, approved: bool, by: str, reason: str, channel: str, now: datetime
) -> Decision:
    """Record a person's decision over the request as it stands in the ledger, and return the recorded one.

    Raises:
        Refusal: this person may not decide it, gave no reason, or it has expired.
        NotFound, Conflict: no such request, or it is decided already.
    """
    request = ledger.approval_request(request_id)
    check_decider(request, by, reason, now)
    made = Decision(request_id, request.digest, approved, by.strip(), reason.strip(), channel, now)
    return ledger.decide(made)

"""Ask a person to decide over exactly this evidence, and record what was decided."""

from collections.abc import Sequence
from datetime import datetime

from blocks.approvals.base import ApprovalRequest, Decision
from blocks.common.errors import Conflict
from blocks.environment import Environment
from tasks.approval.rules.approval import check_clock, check_decider
from tasks.approval.rules.evidence import (
    Evidence,
    ExpectationCounts,
    text_digest,
)
from tasks.shared.records import EvaluationResult, TierData, TrainingResult, ValidationResult
from tasks.shared.trust import current_approval_policy, environment_people, latest_signed_time, record_refusals


def approval_link(env: Environment, request_id: str) -> str:
    """Return the request's page at the gateway, where people sign in; without one, the command to type."""
    if address := env.gateway.address:
        return f"{address}/approvals/{request_id}"
    return f'make approve REQUEST={request_id} BY=you REASON="why"'


def version_commit(env: Environment, model: str, version: str) -> str:
    """Return the commit that a version was trained at, "" when there is no such version."""
    found = env.tracking().version(model, version) if version else None
    return found.tags.get("ratchet.commit", "") if found else ""


def build_evidence(
    model: str,
    environment: str,
    data: TierData,
    validation_result: ValidationResult,
    training_result: TrainingResult,
    evaluation_result: EvaluationResult,
    waivers: tuple[str, ...] = (),
    because: str = "",
    attachments_digest: str | None = None,
) -> Evidence:
    """Return everything that a decision is about; its digest is what is approved."""
    return Evidence(
        model=model,
        environment=environment,
        version=training_result.version,
        model_digest=training_result.model_digest,
        commit=training_result.commit,
        patch_digest=training_result.patch_digest,
        tier=data.tier,
        as_of=data.as_of,
        data_digest=data.data_digest,
        holdout_digest=data.holdout_digest,
        parameters=training_result.parameters,
        seed=training_result.seed,
        expectations=ExpectationCounts(passed=validation_result.expectations_passed, failed=0),
        metrics=evaluation_result.metrics,
        champion_version=evaluation_result.champion_version,
        champion_metrics=evaluation_result.champion_metrics,
        verdict=evaluation_result.verdict,
        reasons=evaluation_result.reasons,
        cost_usd=training_result.cost_usd,
        serving_usd_month=training_result.serving_usd_month,
        attachments_digest=attachments_digest,
        failed_gates=evaluation_result.failed_gates,
        waivers=waivers,
        trigger_reason=because or None,
    )


def submit_decision(
    env: Environment,
    request_id: str,
    *,
    approved: bool,
    decided_by: str,
    reason: str,
    channel: str,
    now: datetime,
    authenticated: bool = False,
    roles: Sequence[str] = (),
    shown_digest: str | None = None,
) -> Decision:
    """Sign and record a person's decision over the request as it stands in the ledger; return the recorded one.

    A refused attempt is recorded, too.

    Args:
        env, request_id, approved, by, reason, channel, now: the decision, and where it is recorded.
        authenticated: whether the channel proved who it is.
        roles: the roles that the channel proved with that; they are signed with the decision.
        shown_digest: the digest of the request that the person was shown, where the channel knows it.

    Raises:
        Refusal: this person may not decide it, gave no reason, it has expired, or the clock has gone back.
        NotFound, Conflict: no such request, it is decided already, or it is not what was shown.
        Rejected: no key on this machine signs decisions.
        Corrupt: decisions that were signed are gone from the ledger.
    """
    approvals = env.approvals()
    request = approvals.approval_request(request_id)
    with record_refusals(env, request_id, "decide", decided_by, channel, now):
        signer = env.signing.signer("decisions")
        check_clock(latest_signed_time(approvals.links()) or request.requested_at, now)
        check_shown_digest(request, shown_digest)
        check_decider(
            request, decided_by, reason, now, authenticated=authenticated, proved_roles=roles,
            people=environment_people(env), policy=current_approval_policy(env, request.model),
        )  # fmt: skip
        decision = Decision(
            request_id, request.digest, approved, decided_by.strip(), reason.strip(), channel, now, authenticated,
            roles=tuple(sorted(roles)) if authenticated else (),
        )  # fmt: skip
        return approvals.decide(decision, signer)


def check_shown_digest(request: ApprovalRequest, shown: str | None) -> None:
    """Refuse a decision over something else than what is asked now.

    Raises:
        Conflict: the digest that the person was shown is not the request's, or not that of its evidence.
    """
    if shown is not None and not (shown == request.digest == text_digest(request.evidence)):
        raise Conflict(
            f"approval request {request.id!r} is not what was shown: that had digest {shown[:64]!r}. "
            "Read it again, and decide anew."
        )

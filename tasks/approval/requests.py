"""Build the evidence of an approval request, and submit decisions on requests."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from blocks.approvals.chain import decisions_of
from blocks.common.errors import Conflict
from blocks.environment import Environment
from blocks.records.approvals import ApprovalRequest, ChainEntry, Decision
from blocks.records.identity import may_be_same_person
from tasks.approval.review_attachments import store_review_attachments
from tasks.approval.rules.actions import Actor
from tasks.approval.rules.approval import check_clock, check_decider
from tasks.approval.rules.evidence import (
    Evidence,
    ExpectationCounts,
    canonical_json,
    evidence_digest,
    text_digest,
)
from tasks.approval.rules.people import People
from tasks.approval.rules.policy import check_requester
from tasks.shared.alerts import emit_alert
from tasks.shared.models import TeamModel
from tasks.shared.records import EvaluationResult, TierData, TrainingResult, ValidationResult
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import (
    approval_policy,
    current_approval_policy,
    environment_people,
    latest_signed_time,
    record_refusals,
)
from tasks.shared.waivers import challenger_authors, valid_waivers


def approval_link(env: Environment, request_id: str) -> str:
    """Return the address of the request's page on the gateway, or the command to type when there is no gateway."""
    if address := env.gateway.address:
        return f"{address}/approvals/{request_id}"
    return f'make approve REQUEST={request_id} BY=you REASON="why"'


def build_evidence(
    model: str,
    environment: str,
    data: TierData,
    validation_result: ValidationResult,
    training_result: TrainingResult,
    evaluation_result: EvaluationResult,
    waivers: tuple[str, ...] = (),
    trigger_reason: str = "",
    attachments_digest: str | None = None,
) -> Evidence:
    """Return the evidence that people decide on. An approval is valid for its digest only."""
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
        trigger_reason=trigger_reason or None,
        spent_level=evaluation_result.spent_level,
        holdout_rule=data.holdout_rule or None,
        cut_off=data.cut_off or None,
        trained_until=data.trained_until or None,
        compared_since=evaluation_result.compared_since or None,
    )


def gather_evidence(
    env: Environment,
    team_model: TeamModel,
    data: TierData,
    validation_result: ValidationResult,
    training_result: TrainingResult,
    evaluation_result: EvaluationResult,
    requester: Actor,
    trigger_reason: str,
    now: datetime,
) -> Evidence:
    """Return everything that the decision is about, waivers that stand now included, and store the attachments.

    Raises:
        Refusal: the record of decisions is damaged, so no waiver can be trusted.
    """
    results = (validation_result, training_result, evaluation_result)
    waivers = valid_waivers(env, team_model.spec, training_result, evaluation_result, requester, now)
    attachments_digest = store_review_attachments(env, team_model, data, *results)
    return build_evidence(team_model.spec.name, env.name, data, *results, waivers, trigger_reason, attachments_digest)


def submit_request(
    env: Environment,
    team_model: TeamModel,
    evidence: Evidence,
    requested_by: str,
    flow_run_id: str,
    now: datetime,
    *,
    authenticated: bool = False,
) -> ApprovalRequest:
    """Write the request over this evidence into the ledger, with who may decide it; a retry finds it there.

    `authenticated` says whether a signed order proved who requested the run.

    Raises:
        Refusal: nobody proved who requested the run, and the policy refuses such requests.
    """
    spec, digest = team_model.spec, evidence_digest(evidence)
    policy = approval_policy(env, spec)
    check_requester(policy, requested_by, authenticated=authenticated)
    return env.approvals().add_request(
        ApprovalRequest(
            id=f"{spec.name}-{evidence.version}-{digest[:8]}",
            model=spec.name,
            environment=env.name,
            version=evidence.version,
            digest=digest,
            evidence=canonical_json(evidence),
            requested_by=requested_by,
            requested_at=now,
            expires_at=now + timedelta(days=policy.expires_days),
            flow_run_id=flow_run_id,
            approvers=policy.approvers,
            four_eyes=policy.four_eyes,
            authors=challenger_authors(
                env, spec.name, evidence.champion_version, evidence.commit, evidence.patch_digest
            ),
            approvals=policy.approvals_of(requester_authenticated=authenticated),
            roles=policy.roles,
            requester_authenticated=authenticated,
        )
    )


def announce_request(env: Environment, request: ApprovalRequest, trigger_reason: str) -> None:
    """Emit the alert that a version waits for approval, with the way to decide."""
    trigger_text = f" It was requested by {trigger_reason}" if trigger_reason else ""
    emit_alert(
        env, "approval.requested", model=request.model, subject_id=request.id,
        alert_record_key=f"approval-requested:{request.id}",
        sentence=f"Version {request.version} passed and waits for approval until "
                 f"{request.expires_at:%Y-%m-%d %H:%M %Z}.{trigger_text}",
        links={"approve": approval_link(env, request.id)},
    )  # fmt: skip


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
    """Sign a person's decision on a request, record it in the ledger, and return the recorded decision.

    A refused attempt is recorded, too.

    Args:
        env: the environment whose ledger records the decision.
        request_id: the request that is decided.
        approved: True to approve, False to reject.
        decided_by: the person's name or e-mail address.
        channel: how the decision was made, for example "terminal".
        now: the time of the decision, with a zone.
        authenticated: whether the channel authenticated the person.
        roles: the roles that the authentication proved. They are signed with the decision.
        shown_digest: the digest of the request that the person saw, when the channel knows it.

    Raises:
        Refusal: this person may not decide, no reason was given, the request has expired, or the clock went back.
        NotFound: there is no such request.
        Conflict: the request was decided already, or has changed since the person saw it.
        Rejected: this machine has no key that signs decisions.
        Corrupt: signed decisions are missing from the ledger.
    """
    approvals = env.approvals()
    with record_refusals(env, request_id, "decide", decided_by, channel, now):
        request = approvals.get_request(request_id)
        signer = env.signing.signer("decisions")
        check_clock(latest_signed_time(approvals.chain_entries()) or request.requested_at, now)
        if shown_digest is not None and not (shown_digest == request.digest == text_digest(request.evidence)):
            raise Conflict(
                f"approval request {request.id!r} has changed since it was shown (digest {shown_digest[:64]!r}). "
                "Read it again, and decide again."
            )
        people = environment_people(env)
        check_decider(
            request, decided_by, reason, now, authenticated=authenticated, proved_roles=roles,
            people=people, policy=current_approval_policy(env, request.model),
        )  # fmt: skip
        _refuse_second_name(approvals.chain_entries(request_id), decided_by, people, request_id)
        decision = Decision(
            request_id, request.digest, approved, decided_by.strip(), reason.strip(), channel, now, authenticated,
            roles=tuple(sorted(roles)) if authenticated else (),
        )  # fmt: skip
        return approvals.record_decision(decision, signer)


def _refuse_second_name(links: Sequence[ChainEntry], decided_by: str, people: People, request_id: str) -> None:
    """Refuse a person who has decided under another name; the ledger itself knows the same name when it comes again."""
    for decision in decisions_of(links):
        if people.is_same_person(decision.by, decided_by) and not may_be_same_person(decision.by, decided_by):
            problem, where = "this person has decided under another name", f"approval request {request_id}"
            raise Refusal(problem, where=where, value=decision.by, remedy="Ask another person.")

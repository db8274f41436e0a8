"""Put an approved version into service. Whoever deploys checks the approval itself."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

from blocks.approvals.base import ApprovalRequest, Approvals
from blocks.common.errors import PortError, TerminalError
from blocks.effects.base import Deployment, Effect, Effects
from blocks.endpoints.base import Endpoint, GoldenExample, InferenceLogPolicy, ProbeResult, Release
from blocks.environment import Environment
from blocks.tracking.base import CHAMPION_ALIAS, PROMOTED_TAG, Tracking
from runtime.digests import folder_digest
from tasks.approval.rules.approval import check_clock, check_deployable
from tasks.approval.rules.evidence import Evidence, evidence_digest, parse_evidence
from tasks.shared.alerts import emit_alert
from tasks.shared.namespaces import check_namespace_allowed
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import (
    current_approval_policy,
    environment_people,
    latest_signed_time,
    record_refusals,
    verified_chain,
    verified_decisions,
)
from tasks.shared.waivers import check_waivers_valid


def approved_release(
    env: Environment,
    request: ApprovalRequest,
    before: str,
    golden: GoldenExample,
    *,
    begun: Effect | None,
    now: datetime,
) -> Release:
    """Return what may be served: the approval over it stands now, and its files are those that were approved.

    Raises:
        Refusal: it may not; the ledger says that it was tried, and why it was refused.
    """
    with record_refusals(env, request.id, "deploy", "", "deploy task", now):
        evidence = verify_approval(env, request, before, interrupted_effect=begun, now=now)
        files = approved_files(env, request, evidence)
    return Release(request.model, request.version, files, evidence.model_digest, golden)


def verify_approval(
    env: Environment,
    request: ApprovalRequest,
    deployed_version: str,
    *,
    interrupted_effect: Effect | None,
    now: datetime,
) -> Evidence:
    """Return the evidence when the approval over it stands now; `interrupted_effect` is what an interrupted deployment left.

    All decisions are verified here, from the pinned keys on: signatures, chain, digests, who, when, how many.
    """
    check_namespace_allowed(env, request.model)
    evidence, resumed = parse_evidence(request.evidence), interrupted_effect is not None
    if interrupted_effect is not None and interrupted_effect.state == "done" and deployed_version != request.version:
        raise Refusal(
            "this approval was used, and the version has been taken back since",
            where=request.id,
            value=interrupted_effect.outcome,
            remedy="Retrain, and approve anew.",
        )
    links = verified_chain(env)
    check_clock(latest_signed_time(links) or request.requested_at, now)
    check_deployable(
        request,
        verified_decisions(links, request),
        evidence_digest=evidence_digest(evidence),
        current_champion=evidence.champion_version
        if resumed and deployed_version == request.version
        else deployed_version,
        evaluated_champion=evidence.champion_version,
        now=now,
        people=environment_people(env),
        policy=current_approval_policy(env, request.model),
    )
    if evidence.tier != "full" or (evidence.verdict != "pass" and not evidence.waivers):
        raise Refusal(
            "only a model of the full tier that passed may serve",
            where=f"version {request.version}",
            value=f"{evidence.tier} tier, {evidence.verdict}",
            remedy="Retrain on the full tier.",
        )
    if evidence.verdict != "pass":
        check_waivers_valid(
            env, links, evidence.failed_gates, evidence.waivers, request.model, request.requested_by, now
        )
    return evidence


def approved_files(env: Environment, request: ApprovalRequest, evidence: Evidence) -> Path:
    """Return the exact artifact that was approved, from this machine or from the registry.

    Raises:
        Refusal: the registry's files are not those that were approved.
    """
    here = env.scratch / "models" / request.model / request.version
    if (here / "model").is_dir() and folder_digest(here / "model") == evidence.model_digest:
        return here / "model"
    artifact = env.tracking().fetch_model(request.model, request.version, here)
    if (digest := folder_digest(artifact)) != evidence.model_digest:
        raise Refusal(
            "the model's files are not those that were approved",
            where=f"{request.model} version {request.version}",
            value=digest,
            remedy="Do not serve it: retrain and approve anew.",
        )
    return artifact


def switch_and_record(
    env: Environment, request: ApprovalRequest, release: Release, before: str
) -> tuple[str, ProbeResult]:
    """Switch and write down how it ended; the alias `champion` moves while the server is proven.

    Returns:
        The URL, and what preflight saw (what verification saw, where the version served already).
    """
    tracking, approvals, effects = env.tracking(), env.approvals(), env.effects()  # at hand before the switch
    warm_up_thread = Thread(target=warm_up_tracking_client, args=(tracking,), daemon=True)
    warm_up_thread.start()
    try:
        url_and_probe = switch_and_verify(env.endpoint(), release, before)
    except TerminalError as failed:
        deployment = record_deployment(approvals, effects, request, "failed", str(failed))
        problem = f"Version {request.version} could not be deployed; {before or 'nothing'} serves: {failed}"
        emit_alert(
            env, "release.failed", model=request.model, alert_record_key=f"told:{deployment.id}", sentence=problem
        )
        raise
    warm_up_thread.join()
    tracking.tag_version(request.model, request.version, {PROMOTED_TAG: request.environment})
    tracking.set_alias(request.model, CHAMPION_ALIAS, request.version)
    deployment = record_deployment(approvals, effects, request, "serving", "")
    done = f"Version {request.version} serves at {url_and_probe[0]}, approved by {deployment.by}: {deployment.reason}"
    rollback_link = {"take it back": f'prefect deployment run rollback/rollback -p model={request.model} -p requested_by=you '
                            f'-p reason="why" -p environment={env.name}'}  # fmt: skip
    emit_alert(
        env,
        "release.deployed",
        model=request.model,
        alert_record_key=f"told:{deployment.id}",
        sentence=done,
        links=rollback_link,
    )
    return url_and_probe


def warm_up_tracking_client(tracking: Tracking) -> None:
    """Load the tracking server's client beside the wait; whether it answers is seen when it is needed."""
    with suppress(PortError):
        tracking.version("none", "0")


def switch_and_verify(endpoint: Endpoint, release: Release, before: str) -> tuple[str, ProbeResult]:
    """Preflight, switch, verify; return the URL and what was seen.

    When verification fails, the version before it is restored; of a first version nothing serves any more.
    """
    serving, probe = endpoint.live_version(release.endpoint), None
    if serving is None or (serving.version, serving.digest) != (release.version, release.digest):
        probe = endpoint.preflight(release)
        serving = endpoint.switch(release)
    try:
        verified = endpoint.verify(release)
    except Exception as wrong:
        try:
            endpoint.rollback(release.endpoint, before) if before else endpoint.undeploy(release.endpoint)
        except PortError as worse:
            wrong.add_note(f"and version {before} could not be restored: {worse}" if before else
                           f"and it could not be withdrawn: {worse}")  # fmt: skip
        raise
    return serving.url, probe or verified


def record_deployment(
    approvals: Approvals, effects: Effects, request: ApprovalRequest, status: str, problem: str
) -> Deployment:
    """Add a line to the deployment ledger: who approved, and why; or what went wrong."""
    decision = approvals.decision(request.id)
    return effects.record_deployment(
        Deployment(
            id=f"deploy:{request.id}:{status}",
            model=request.model,
            environment=request.environment,
            version=request.version,
            digest=parse_evidence(request.evidence).model_digest,
            action="deploy",
            status="serving" if status == "serving" else "failed",
            by=decision.by if decision else "",
            reason=problem or (decision.reason if decision else ""),
            request_id=request.id,
            at=datetime.now(UTC),
        )
    )


def inference_log_rules(spec: ModelSpec) -> InferenceLogPolicy | None:
    """Return what the endpoint may keep of requests and answers, as `model.yaml` says; None for nothing."""
    if not spec.inference_log.enabled:
        return None
    return InferenceLogPolicy(spec.data.entity, spec.inference_log.exclude, spec.inference_log.hash)


def golden_json(golden: GoldenExample) -> str:
    """Return a golden request as it is kept in the ledger with the intent to deploy, for a later rollback."""
    return json.dumps(
        {"request": golden.request, "predictions": golden.expected_predictions, "tolerance": golden.tolerance}
    )

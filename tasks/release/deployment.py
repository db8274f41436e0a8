"""Deploy an approved version. The deployment verifies the approval itself."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Literal

from blocks.approvals.base import Approvals
from blocks.common.errors import PortError, TerminalError
from blocks.effects.base import Effect, Effects
from blocks.endpoints.base import Endpoint, GoldenExample, InferenceLogPolicy, LiveVersion, ProbeResult, Release
from blocks.environment import Environment
from blocks.records.approvals import ApprovalRequest
from blocks.records.deployments import Deployment
from blocks.tracking.base import Tracking
from runtime.digests import folder_digest
from tasks.approval.rules.approval import check_clock, check_deployable
from tasks.approval.rules.evidence import Evidence, evidence_digest, parse_evidence
from tasks.approval.rules.history import champion_of
from tasks.release.registry import report_deployment
from tasks.shared.alerts import emit_alert
from tasks.shared.models import TeamModel, check_namespace_allowed
from tasks.shared.records import DeploymentResult
from tasks.shared.reports import only_reports
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.promotion import may_be_promoted
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


def deploy_approved(
    env: Environment, team_model: TeamModel, request: ApprovalRequest, golden: GoldenExample
) -> DeploymentResult:
    """Deploy what was approved: intent in the ledger, switch, ledger, and then the reports. A retry finds what is done.

    Raises:
        Refusal: the approval does not stand.
        Rejected, Corrupt: the version does not serve as it should; the one before it serves on.
    """
    started, effects, key = time.monotonic(), env.effects(), f"deploy:{request.id}"
    lines = effects.deployments(request.model, env.name)
    recorded = next((line for line in lines if line.id == f"{key}:serving"), None)
    previous_version = champion_of([line for line in lines if line != recorded])
    if recorded and (live := live_as_recorded(env, recorded, lines)):
        url, problem = live.url, report_deployment(env, recorded, live.url)
        probe = ProbeResult(live.version, live.digest, 0.0, 0.0, ("preflight: in an earlier attempt of this task",))
    else:
        begun, now = finished_by_its_line(effects.effect(key), recorded), datetime.now(UTC)
        approved = approved_release(env, request, champion_of(lines), golden, begun=begun, now=now)
        release = replace(approved, log_policy=inference_log_rules(team_model.spec))
        effects.intend(key, golden_json(golden), datetime.now(UTC))
        url, probe, problem = switch_and_report(env, request, release, previous_version)
    effects.finish(key, f"version {request.version} serves at {url}", datetime.now(UTC))
    return DeploymentResult(
        model=request.model,
        version=request.version,
        replaced_version=previous_version if previous_version != request.version else "",
        url=url,
        seconds=time.monotonic() - started,
        preflight_json=json.dumps(asdict(probe)),
        registry_problem=problem,
    )


def live_as_recorded(env: Environment, line: Deployment, lines: Sequence[Deployment]) -> LiveVersion | None:
    """Return the live version if it is what this line of the ledger says, and no later line says otherwise.

    A deployment that is done is reported on and not verified again: no failure of an attempt may undo an earlier one.
    """
    live = env.endpoint().live_version(line.model)
    is_champion = champion_of(lines) == line.version
    return live if live and is_champion and (live.version, live.digest) == (line.version, line.digest) else None


def finished_by_its_line(effect: Effect | None, recorded: Deployment | None) -> Effect | None:
    """Return an effect as finished when the ledger has its deployment: a crash in between left it open."""
    if effect is None or recorded is None or effect.state == "done":
        return effect
    return replace(effect, state="done", outcome=f"version {recorded.version} served")


def approved_release(
    env: Environment,
    request: ApprovalRequest,
    before: str,
    golden: GoldenExample,
    *,
    begun: Effect | None,
    now: datetime,
) -> Release:
    """Return the release to deploy, after the approval and the model's files were verified.

    Raises:
        Refusal: it may not be deployed. The ledger records the attempt and the reason.
    """
    with record_refusals(env, request.id, "deploy", "", "deploy task", now):
        evidence = verify_approval(env, request, before, interrupted_effect=begun, now=now)
        check_recorded_cut_off(env, request, evidence)
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
    """Return the evidence of a request after verifying that its approval is valid now.

    Signatures, chain, digests, people, times and the number of approvals are verified, starting from the pinned keys.
    `interrupted_effect` is the record that an interrupted deployment left in the ledger.
    """
    check_namespace_allowed(env, request.model)
    evidence, resumed = parse_evidence(request.evidence), interrupted_effect is not None
    if interrupted_effect is not None and interrupted_effect.state == "done" and deployed_version != request.version:
        raise Refusal(
            "this approval was already used, and the version was rolled back afterwards",
            where=request.id,
            value=interrupted_effect.outcome,
            remedy="Retrain, and request a new approval.",
        )
    if env.approvals().get_request(request.id) != request:
        raise Refusal("the request was changed after it was read", where=f"approval request {request.id}")
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
    if not may_be_promoted(evidence.tier, evidence.verdict, waived=bool(evidence.waivers)):
        raise Refusal(
            "only a model trained on the full tier with verdict pass (or a waiver) may be deployed",
            where=f"version {request.version}",
            value=f"{evidence.tier} tier, {evidence.verdict}",
            remedy="Retrain on the full tier.",
        )
    if evidence.verdict != "pass":
        check_waivers_valid(env, links, evidence.failed_gates, evidence.waivers, request, now)
    return evidence


def check_recorded_cut_off(env: Environment, request: ApprovalRequest, evidence: Evidence) -> None:
    """Refuse a version whose holdout rule or cut-off in the registry is another than the approved one.

    Later challengers are compared with it on rows that are newer than what the registry says.
    """
    version = env.tracking().version(request.model, request.version)
    approved = {"holdout": evidence.holdout_rule, "trained_until": evidence.trained_until, "cut_off": evidence.cut_off}
    for name, value in approved.items():
        recorded = version.tags.get(f"ratchet.{name}") or None if version else None
        if recorded != value and not (name == "holdout" and value is None):  # evidence of earlier releases has no rule
            raise Refusal(
                "the registry's record of the training rows is not the approved one",
                where=f"{request.model} version {request.version}, tag ratchet.{name}",
                value=recorded,
                remedy=f"The approved value is {value}: restore the tag, or retrain and request a new approval.",
            )


def approved_files(env: Environment, request: ApprovalRequest, evidence: Evidence) -> Path:
    """Return the model files that were approved, from this machine or from the registry.

    Raises:
        Refusal: the files in the registry are not the approved ones.
    """
    here = env.scratch / "models" / request.model / request.version
    if (here / "model").is_dir() and folder_digest(here / "model") == evidence.model_digest:
        return here / "model"
    artifact = env.tracking().fetch_model(request.model, request.version, here)
    if (digest := folder_digest(artifact)) != evidence.model_digest:
        raise Refusal(
            "the model's files are not the approved ones",
            where=f"{request.model} version {request.version}",
            value=digest,
            remedy="Do not deploy it: retrain, and request a new approval.",
        )
    return artifact


def switch_and_record(
    env: Environment, request: ApprovalRequest, release: Release, before: str
) -> tuple[str, ProbeResult]:
    """Switch the endpoint to the release, record the outcome in the ledger, and report it; see `switch_and_report`."""
    return switch_and_report(env, request, release, before)[:2]


def switch_and_report(
    env: Environment, request: ApprovalRequest, release: Release, before: str
) -> tuple[str, ProbeResult, str]:
    """Switch the endpoint to the release, record it in the ledger at once, and then tell the registry and the people.

    Returns:
        The URL; the result of the preflight (of the verification, when the version was deployed already); and why the
        registry does not agree with the ledger yet, or "".
    """
    tracking, approvals, effects = env.tracking(), env.approvals(), env.effects()  # opened before the switch
    warm_up_thread = Thread(target=warm_up_tracking_client, args=(tracking,), daemon=True)
    warm_up_thread.start()
    try:
        url_and_probe = switch_and_verify(env.endpoint(), release, before)
    except TerminalError as failed:
        deployment = record_deployment(approvals, effects, request, "failed", str(failed))
        problem = f"Version {request.version} was not deployed. Deployed version: {before or 'none'}. Reason: {failed}"
        with only_reports("the alert that the deployment failed"):
            emit_alert(
                env,
                "release.failed",
                model=request.model,
                alert_record_key=f"release:{deployment.id}",
                sentence=problem,
            )
        raise
    deployment = record_deployment(approvals, effects, request, "serving", "")
    warm_up_thread.join()
    return *url_and_probe, report_deployment(env, deployment, url_and_probe[0])


def warm_up_tracking_client(tracking: Tracking) -> None:
    """Load the tracking client while the switch runs. An error is ignored here, and raised when the client is used."""
    with suppress(PortError):
        tracking.version("none", "0")


def switch_and_verify(endpoint: Endpoint, release: Release, before: str) -> tuple[str, ProbeResult]:
    """Preflight the release, switch to it, verify it, and return the URL and the probe's result."""
    serving, probe = endpoint.live_version(release.endpoint), None
    if serving is None or (serving.version, serving.digest) != (release.version, release.digest):
        probe = endpoint.preflight(release)
        serving = endpoint.switch(release)
    verified = verify_or_restore(endpoint, release, before)
    return serving.url, probe or verified


def verify_or_restore(endpoint: Endpoint, release: Release, before: str) -> ProbeResult:
    """Verify the switch. When that fails, version `before` is restored; a first version is undeployed."""
    try:
        return endpoint.verify(release)
    except Exception as wrong:
        try:
            endpoint.rollback(release.endpoint, before) if before else endpoint.undeploy(release.endpoint)
        except PortError as worse:
            wrong.add_note(f"version {before} could not be restored: {worse}" if before else
                           f"the version could not be undeployed: {worse}")  # fmt: skip
        raise


def record_deployment(
    approvals: Approvals, effects: Effects, request: ApprovalRequest, status: Literal["serving", "failed"], problem: str
) -> Deployment:
    """Add a line to the deployment ledger: the approver and the reason, or the problem."""
    decision = approvals.final_decision(request.id)
    return effects.record_deployment(
        Deployment(
            id=f"deploy:{request.id}:{status}",
            model=request.model,
            environment=request.environment,
            version=request.version,
            digest=parse_evidence(request.evidence).model_digest,
            action="deploy",
            status=status,
            by=decision.by if decision else "",
            reason=problem or (decision.reason if decision else ""),
            request_id=request.id,
            at=datetime.now(UTC),
        )
    )


def inference_log_rules(spec: ModelSpec) -> InferenceLogPolicy | None:
    """Return the inference log policy of `model.yaml`; None when the log is off."""
    if not spec.inference_log.enabled:
        return None
    return InferenceLogPolicy(spec.data.entity, spec.inference_log.exclude, spec.inference_log.hash)


def golden_json(golden: GoldenExample) -> str:
    """Return the golden example as JSON. The ledger stores it with the intent to deploy, for a later rollback."""
    return json.dumps(asdict(golden))


def recorded_golden(effects: Effects, request_id: str) -> GoldenExample:
    """Return the golden example of a deployed version from the ledger."""
    effect = effects.effect(f"deploy:{request_id}")
    if effect is None:
        remedy = "Name a version that was deployed by Ratchet."
        raise Refusal("the ledger has no golden example of that version", value=request_id, remedy=remedy)
    return golden_from_json(effect.detail)


def golden_from_json(text: str) -> GoldenExample:
    """Return the golden example that `golden_json` wrote."""
    return GoldenExample(**json.loads(text))

"""Put an approved version into service. Whoever deploys checks the approval itself."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

from blocks.approvals.base import ApprovalRequest, Approvals
from blocks.common.errors import PortError, TerminalError
from blocks.effects.base import Deployment, Effect, Effects
from blocks.endpoints.base import Endpoint, Golden, LogRules, Probe, Release
from blocks.environment import Environment
from blocks.tracking.base import CHAMPION, PROMOTED, Tracking
from runtime.digests import folder_digest
from tasks.approval.rules.approval import check_clock, check_deployable
from tasks.approval.rules.evidence import Evidence, evidence_digest, parse_evidence
from tasks.shared.alerts import tell
from tasks.shared.namespaces import check_allowed
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import latest, people_of, policy_now, refusals_recorded, sound_chain, sound_decisions
from tasks.shared.waivers import check_waived


def approved_release(
    world: Environment, request: ApprovalRequest, before: str, golden: Golden, *, begun: Effect | None, now: datetime
) -> Release:
    """Return what may be served: the approval over it stands now, and its files are those that were approved.

    Raises:
        Refusal: it may not; the ledger says that it was tried, and why it was refused.
    """
    with refusals_recorded(world, request.id, "deploy", "", "deploy task", now):
        evidence = still_approved(world, request, before, begun=begun, now=now)
        files = approved_files(world, request, evidence)
    return Release(request.model, request.version, files, evidence.model_digest, golden)


def still_approved(
    world: Environment, request: ApprovalRequest, serving: str, *, begun: Effect | None, now: datetime
) -> Evidence:
    """Return the evidence when the approval over it stands now; `begun` is what an interrupted deployment left.

    All decisions are verified here, from the pinned keys on: signatures, chain, digests, who, when, how many.
    """
    check_allowed(world, request.model)
    evidence, resumed = parse_evidence(request.evidence), begun is not None
    if begun is not None and begun.state == "done" and serving != request.version:
        raise Refusal(
            "this approval was used, and the version has been taken back since",
            where=request.id,
            value=begun.outcome,
            remedy="Retrain, and approve anew.",
        )
    links = sound_chain(world)
    check_clock(latest(links) or request.requested_at, now)
    check_deployable(
        request,
        sound_decisions(links, request),
        evidence_digest=evidence_digest(evidence),
        champion_now=evidence.champion_version if resumed and serving == request.version else serving,
        champion_then=evidence.champion_version,
        now=now,
        people=people_of(world),
        policy=policy_now(world, request.model),
    )
    if evidence.tier != "production" or (evidence.verdict != "pass" and not evidence.waivers):
        raise Refusal(
            "only a model of the production tier that passed may serve",
            where=f"version {request.version}",
            value=f"{evidence.tier} tier, {evidence.verdict}",
            remedy="Retrain on the production tier.",
        )
    if evidence.verdict != "pass":
        check_waived(world, links, evidence.gates, evidence.waivers, request.model, request.requested_by, now)
    return evidence


def approved_files(world: Environment, request: ApprovalRequest, evidence: Evidence) -> Path:
    """Return the exact artifact that was approved, from this machine or from the registry.

    Raises:
        Refusal: the registry's files are not those that were approved.
    """
    here = world.scratch / "models" / request.model / request.version
    if (here / "model").is_dir() and folder_digest(here / "model") == evidence.model_digest:
        return here / "model"
    artifact = world.tracking().fetch(request.model, request.version, here)
    if (digest := folder_digest(artifact)) != evidence.model_digest:
        raise Refusal(
            "the model's files are not those that were approved",
            where=f"{request.model} version {request.version}",
            value=digest,
            remedy="Do not serve it: retrain and approve anew.",
        )
    return artifact


def put_into_service(world: Environment, request: ApprovalRequest, release: Release, before: str) -> tuple[str, Probe]:
    """Switch and write down how it ended; the alias `champion` moves while the server is proven.

    Returns:
        The URL, and what preflight saw (what verification saw, where the version served already).
    """
    tracking, approvals, effects = world.tracking(), world.approvals(), world.effects()  # at hand before the switch
    warming = Thread(target=reach, args=(tracking,), daemon=True)
    warming.start()
    try:
        served = switch(world.endpoint(), release, before)
    except TerminalError as failed:
        line = write_down(approvals, effects, request, "failed", str(failed))
        problem = f"Version {request.version} could not be deployed; {before or 'nothing'} serves: {failed}"
        tell(world, "release.failed", model=request.model, key=f"told:{line.id}", sentence=problem)
        raise
    warming.join()
    tracking.tag_version(request.model, request.version, {PROMOTED: request.environment})
    tracking.set_alias(request.model, CHAMPION, request.version)
    line = write_down(approvals, effects, request, "serving", "")
    done = f"Version {request.version} serves at {served[0]}, approved by {line.by}: {line.reason}"
    back = {"take it back": f'prefect deployment run rollback/rollback -p model={request.model} -p requested_by=you '
                            f'-p reason="why" -p environment={world.name}'}  # fmt: skip
    tell(world, "release.deployed", model=request.model, key=f"told:{line.id}", sentence=done, links=back)
    return served


def reach(tracking: Tracking) -> None:
    """Load the tracking server's client beside the wait; whether it answers is seen when it is needed."""
    with suppress(PortError):
        tracking.version("none", "0")


def switch(endpoint: Endpoint, release: Release, before: str) -> tuple[str, Probe]:
    """Preflight, switch, verify; return the URL and what was seen.

    When verification fails, the version before it is restored; of a first version nothing serves any more.
    """
    now, probe = endpoint.serving(release.endpoint), None
    if now is None or (now.version, now.digest) != (release.version, release.digest):
        probe = endpoint.preflight(release)
        now = endpoint.switch(release)
    try:
        verified = endpoint.verify(release)
    except Exception as wrong:
        try:
            endpoint.restore(release.endpoint, before) if before else endpoint.withdraw(release.endpoint)
        except PortError as worse:
            wrong.add_note(f"and version {before} could not be restored: {worse}" if before else
                           f"and it could not be withdrawn: {worse}")  # fmt: skip
        raise
    return now.url, probe or verified


def write_down(
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


def log_rules(spec: ModelSpec) -> LogRules | None:
    """Return what the endpoint may keep of requests and answers, as `model.yaml` says; None for nothing."""
    if not spec.inference_log.keep:
        return None
    return LogRules(spec.data.entity, spec.inference_log.leave_out, spec.inference_log.hash)


def golden_json(golden: Golden) -> str:
    """Return a golden request as it is kept in the ledger with the intent to deploy, for a later rollback."""
    return json.dumps({"request": golden.request, "predictions": golden.predictions, "tolerance": golden.tolerance})

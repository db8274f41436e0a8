"""Put an approved version into service, or take one back. Whoever deploys checks the approval itself."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
from prefect import get_run_logger, task

from blocks.digests import folder_digest
from blocks.endpoints.base import Endpoint, Golden, Release
from blocks.environment import open_environment
from blocks.ledger.base import ApprovalRequest, Deployment, Ledger
from blocks.tracking.base import CHAMPION, Tracking
from tasks.expect import to_frame
from tasks.logic.approval import check_deployable
from tasks.logic.evidence import Evidence, evidence_digest, parse_evidence
from tasks.logic.history import champion
from tasks.logic.refusal import Refusal
from tasks.models import Model, load_model
from tasks.records import Deployed, TierData
from tasks.retries import STAGE

GOLDEN_ROWS = 3


@task(name="deploy", **STAGE)
def deploy(request_id: str, data: TierData, environment: str) -> Deployed:
    """Prove the approved version in the real server, switch to it, verify, and write it down.

    Raises:
        Refusal: the approval does not stand (none, expired, another digest, another champion by now).
        Rejected, Corrupt: the version does not serve as it should; the one before it serves on.
    """
    world = open_environment(environment)
    ledger, tracking, endpoint = world.ledger(), world.tracking(), world.endpoint()
    request = ledger.approval_request(request_id)
    before = champion(ledger.deployments(request.model, environment))
    key = f"deploy:{request_id}"
    evidence = still_approved(ledger, request, before, resumed=ledger.effect(key) is not None)
    release = build_release(tracking, load_model(request.model), request, evidence, data, world.scratch)
    ledger.intend(key, _golden_json(release.golden), datetime.now(UTC))
    started = time.monotonic()
    url = put_into_service(endpoint, release, before)
    tracking.set_alias(request.model, CHAMPION, request.version)
    write_down(ledger, request, "serving", request.id)
    ledger.finish(key, f"version {request.version} serves at {url}", datetime.now(UTC))
    get_run_logger().info("version %s serves at %s", request.version, url)
    replaced = before if before != request.version else ""
    seconds = time.monotonic() - started
    return Deployed(model=request.model, version=request.version, replaced=replaced, url=url, seconds=seconds)


def still_approved(ledger: Ledger, request: ApprovalRequest, serving: str, *, resumed: bool) -> Evidence:
    """Return the evidence when the approval over it stands now; `resumed` after an interrupted deployment."""
    evidence = parse_evidence(request.evidence)
    now_champion = evidence.champion_version if resumed and serving == request.version else serving
    check_deployable(
        request,
        ledger.decision(request.id),
        evidence_digest=evidence_digest(evidence),
        champion_now=now_champion,
        champion_then=evidence.champion_version,
        now=datetime.now(UTC),
    )
    if evidence.tier != "production" or evidence.verdict != "pass":
        raise Refusal(
            "only a model of the production tier that passed may serve",
            where=f"version {request.version}",
            value=f"{evidence.tier} tier, {evidence.verdict}",
            remedy="Retrain on the production tier.",
        )
    return evidence


def build_release(
    tracking: Tracking,
    model: Model,
    request: ApprovalRequest,
    evidence: Evidence,
    data: TierData,
    scratch: Path,
) -> Release:
    """Fetch the exact artifact that was approved, and ask it what the golden rows must give."""
    artifact = tracking.fetch(request.model, request.version, scratch / "models" / request.model / request.version)
    digest = folder_digest(artifact)
    if digest != evidence.model_digest:
        raise Refusal(
            "the model's files are not those that were approved",
            where=f"{request.model} version {request.version}",
            value=digest,
            remedy="Do not serve it: retrain and approve anew.",
        )
    rows = to_frame(pq.read_table(data.holdout / "rows.parquet").slice(0, GOLDEN_ROWS))[list(model.spec.data.features)]
    asked = json.dumps({"dataframe_split": json.loads(rows.to_json(orient="split", index=False))})
    answer = json.dumps(tracking.predict(artifact, rows).tolist())
    return Release(request.model, request.version, artifact, digest, Golden(asked, answer))


def put_into_service(endpoint: Endpoint, release: Release, before: str) -> str:
    """Preflight, switch, verify; when verification fails the version before it is restored. Return the URL."""
    now = endpoint.serving(release.endpoint)
    if now is None or (now.version, now.digest) != (release.version, release.digest):
        endpoint.preflight(release)
        now = endpoint.switch(release)
    try:
        endpoint.verify(release)
    except Exception:
        if before:
            endpoint.restore(release.endpoint, before)
        raise
    return now.url


def write_down(ledger: Ledger, request: ApprovalRequest, status: str, line: str) -> Deployment:
    """Add a line to the deployment ledger: who approved, and why."""
    decision = ledger.decision(request.id)
    by, reason = (decision.by, decision.reason) if decision else ("", "")
    return ledger.record_deployment(
        Deployment(
            id=f"deploy:{line}:{status}",
            model=request.model,
            environment=request.environment,
            version=request.version,
            digest=parse_evidence(request.evidence).model_digest,
            action="deploy",
            status="serving" if status == "serving" else "failed",
            by=by,
            reason=reason,
            request_id=request.id,
            at=datetime.now(UTC),
        )
    )


def _golden_json(golden: Golden) -> str:
    return json.dumps({"request": golden.request, "predictions": golden.predictions, "tolerance": golden.tolerance})

"""What an evidence pack says of code, data, training, deployment, monitoring and retention, as JSON takes it."""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.runtime import flow_run

from blocks.approvals.base import ApprovalRequest
from blocks.environment import Environment
from runtime.digests import file_digest
from tasks.approval.rules.evidence import Evidence
from tasks.approval.rules.history import rollback_target
from tasks.evidence.rules.statements import provenance
from tasks.shared.inventory import LOCK, installed
from tasks.shared.models import Model
from tasks.shared.reads import fix_reads
from tasks.shared.records import Deployed, TierData, Trained
from tasks.shared.rules.refusal import Refusal
from tasks.shared.tiers import content_digest, training_baseline


def code_facts(world: Environment, request: ApprovalRequest, evidence: Evidence, trained: Trained) -> dict[str, Any]:
    """Return which code made the model, who wrote and who asked."""
    tags = world.tracking().run(trained.run_id).tags
    return {
        "commit": evidence.commit,
        "patch_digest": evidence.patch_digest,
        "authors": request.authors,
        "requested_by": request.requested_by,
        "flow_run": request.flow_run_id,
        "webhook_delivery": tags.get("ratchet.delivery", ""),
        "tracked_run": trained.run_id,
    }


def data_facts(world: Environment, brought: Model, data: TierData) -> dict[str, Any]:
    """Return the read of the lake, to be made again: snapshots with their digests, and the query as of a time.

    Raises:
        Refusal: the lake does not return that read any more.
    """
    spec = brought.spec.data
    reads = fix_reads(world.lake(), spec, data.read_at or data.as_of)
    if reads.digest != data.data_digest:
        raise Refusal(
            "the lake does not return the read that the model was trained on",
            where=f"{spec.dataset} as of {data.as_of}",
            value=reads.digest,
            remedy="Check the lake: snapshots never change.",
        )
    tables = {
        name or "main": {
            "dataset": read.dataset,
            "as_of": read.id,
            "rows": read.rows,
            "digest": read.digest,
            "snapshots": [
                {"id": each.id, "digest": each.digest, "at": each.created_at.isoformat(), "rows": each.rows,
                 "source": each.source, "files": len(each.files)}
                for each in read.snapshots
            ],
        }
        for name, read in reads.tables.items()
    }  # fmt: skip
    return {
        "query": {"model": data.model, "tier": data.tier, "as_of": data.read_at or data.as_of},
        "data_digest": data.data_digest,
        "tier_digest": data.digest,
        "holdout_digest": data.holdout_digest,
        "train_digest": content_digest(data.train),
        "train_rows": data.train_rows,
        "holdout_rows": data.holdout_rows,
        "holdout": brought.spec.holdout,
        "tables": tables,
    }


def training_facts(
    brought: Model, data: TierData, trained: Trained, parameters: Mapping[str, Any], environment: str
) -> dict[str, Any]:
    """Return what the training was given, and what it ran on."""
    return {
        "model": brought.spec.name,
        "tier": data.tier,
        "parameters": trained.parameters,
        "given": dict(parameters),
        "seed": trained.seed,
        "environment": environment,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": installed(),
        "lock": file_digest(LOCK) if LOCK.exists() else "",
        "image": os.environ.get("RATCHET_IMAGE_DIGEST", ""),
        "run": trained.run_id,
        "run_url": trained.run_url,
        "seconds": trained.seconds,
    }


def comparison_facts(evidence: Evidence, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return how it was held against the champion."""
    evaluation = json.loads(files.get("evaluation.json", b"{}"))
    return {
        "champion": evidence.champion_version,
        "champion_metrics": dict(evidence.champion_metrics),
        "comparison": evaluation.get("comparison"),
        "verdict": evaluation.get("verdict"),
    }


def deployment_facts(world: Environment, request: ApprovalRequest, deployed: Deployed) -> dict[str, Any]:
    """Return the line of the deployment ledger, and where a rollback goes."""
    lines = world.effects().deployments(request.model, request.environment)
    own = next((line for line in lines if line.request_id == request.id), None)
    drill = next((line for line in lines if line.action == "rollback" and line.status == "serving"), None)
    try:
        target = rollback_target(lines)
    except Refusal:
        target = ""
    return {
        "line": asdict(own) if own else None,
        "url": deployed.url,
        "replaced": deployed.replaced,
        "rollback_target": target,
        "last_rollback": drill.at if drill else None,
    }


def monitoring_facts(brought: Model, data: TierData) -> dict[str, Any]:
    """Return what people watch it by: the plan, and what the training rows looked like."""
    spec = brought.spec
    rows, found = training_baseline(brought, data)
    declared = spec.model_dump(mode="json")
    plans = {key: declared[key] for key in ("watch", "monitoring", "drift") if key in declared}
    return {
        "owner": spec.owner,
        "review_by": (datetime.now(UTC) + timedelta(days=spec.evidence.review_days)).date().isoformat(),
        "plan": plans or "Nothing is declared in model.yaml: the owner watches by the baseline below.",
        "baseline_rows": rows,
        "baseline": found,
    }


def retention_facts(world: Environment, brought: Model) -> dict[str, Any]:
    """Return until when this is kept, and where the chain of decisions ended."""
    links = world.approvals().links()
    years = brought.spec.evidence.retain_years
    return {
        "keep_until": (datetime.now(UTC) + timedelta(days=365.25 * years)).date().isoformat(),
        "years": years,
        "audit_head": f"{links[-1].number}:{links[-1].hash}" if links else "",
    }


def made_by(
    request: ApprovalRequest,
    evidence: Evidence,
    data: TierData,
    trained: Trained,
    files: Mapping[str, str],
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    """Return how the model was made, as an in-toto statement."""
    needs: list[dict[str, Any]] = [
        {"uri": "git:commit", "digest": {"gitCommit": evidence.commit}},
        {"uri": f"lake:{data.model}?as_of={data.read_at or data.as_of}", "digest": {"sha256": evidence.data_digest}},
    ]
    if evidence.patch_digest:
        needs.append({"uri": "file:uncommitted.patch", "digest": {"sha256": evidence.patch_digest}})
    if LOCK.exists():
        needs.append({"uri": "file:requirements.lock", "digest": {"sha256": file_digest(LOCK)}})
    return provenance(
        files,
        external={"model": request.model, "tier": data.tier, "as_of": data.as_of, "parameters": dict(parameters),
                  "requested_by": request.requested_by},
        internal={"environment": request.environment, "parameters": trained.parameters, "seed": trained.seed},
        dependencies=needs,
        builder="ratchet:flows/retrain.py",
        run=str(flow_run.id or request.flow_run_id),
        finished=datetime.now(UTC),
    )  # fmt: skip

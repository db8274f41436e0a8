"""The facts of an evidence pack, as JSON values: from code and data to provenance and the bill of materials."""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.runtime import flow_run

from blocks.environment import Environment
from blocks.records.approvals import ApprovalRequest
from runtime.digests import file_digest
from tasks.approval.rules.evidence import Evidence
from tasks.approval.rules.history import rollback_target
from tasks.approval.rules.names import shown_name
from tasks.shared.inventory import LOCK_FILE, installed_packages
from tasks.shared.models import TeamModel
from tasks.shared.records import DeploymentResult, TierData, TrainingResult
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.tables import resolve_reads
from tasks.shared.tiers import content_digest, training_feature_baseline


def code_facts(
    env: Environment, request: ApprovalRequest, evidence: Evidence, training_result: TrainingResult
) -> dict[str, Any]:
    """Return the code that trained the model, its authors, and the requester."""
    tags = env.tracking().run(training_result.run_id).tags
    return {
        "commit": evidence.commit,
        "patch_digest": evidence.patch_digest,
        "authors": request.authors,
        "requested_by": shown_name(request.requested_by, authenticated=request.requester_authenticated),
        "flow_run": request.flow_run_id,
        "webhook_delivery": tags.get("ratchet.webhook_delivery", ""),
        "mlflow_run": training_result.run_id,
    }


def data_facts(env: Environment, team_model: TeamModel, data: TierData) -> dict[str, Any]:
    """Return the read of the lake, so that it can be repeated: the query, and the snapshots with their digests.

    Raises:
        Refusal: the lake no longer returns that read.
    """
    spec = team_model.spec.data
    table_reads = resolve_reads(env.lake(), spec, data.reread_as_of)
    if table_reads.digest != data.data_digest:
        raise Refusal(
            "the lake no longer returns the rows that the model was trained on",
            where=f"{spec.dataset} as of {data.as_of}",
            value=table_reads.digest,
            remedy="Check the lake: a snapshot must never change.",
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
        for name, read in table_reads.tables.items()
    }  # fmt: skip
    return {
        "query": {"model": data.model, "tier": data.tier, "as_of": data.reread_as_of},
        "data_digest": data.data_digest,
        "tier_digest": data.digest,
        "holdout_digest": data.holdout_digest,
        "train_digest": content_digest(data.train),
        "train_rows": data.train_rows,
        "holdout_rows": data.holdout_rows,
        "validation_digest": content_digest(data.training_parts["validation"]) if data.validation_rows else "",
        "validation_rows": data.validation_rows,
        "unused_rows": data.unused_rows,
        "holdout": data.holdout_rule,
        "cut_off": data.cut_off,
        "trained_until": data.trained_until,
        "tables": tables,
    }


def training_facts(
    team_model: TeamModel,
    data: TierData,
    training_result: TrainingResult,
    parameters: Mapping[str, Any],
    environment: str,
) -> dict[str, Any]:
    """Return the inputs of the training, and the platform that it ran on."""
    return {
        "model": team_model.spec.name,
        "tier": data.tier,
        "parameters": training_result.parameters,
        "requested_parameters": dict(parameters),
        "seed": training_result.seed,
        "environment": environment,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": installed_packages(),
        "lock": file_digest(LOCK_FILE) if LOCK_FILE.exists() else "",
        "image": os.environ.get("RATCHET_IMAGE_DIGEST", ""),
        "run": training_result.run_id,
        "run_url": training_result.run_url,
        "seconds": training_result.seconds,
    }


def comparison_facts(evidence: Evidence, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the comparison with the champion."""
    evaluation = json.loads(files.get("evaluation.json", b"{}"))
    return {
        "champion": evidence.champion_version,
        "champion_metrics": dict(evidence.champion_metrics),
        "comparison": evaluation.get("comparison"),
        "verdict": evaluation.get("verdict"),
    }


def deployment_facts(env: Environment, request: ApprovalRequest, deployment_result: DeploymentResult) -> dict[str, Any]:
    """Return the line of the deployment ledger, and the target of a rollback."""
    lines = env.effects().deployments(request.model, request.environment)
    deployment = next((line for line in lines if line.request_id == request.id), None)
    last_rollback = next((line for line in lines if line.action == "rollback" and line.status == "serving"), None)
    try:
        target = rollback_target(lines)
    except Refusal:
        target = ""
    return {
        "deployment": asdict(deployment) if deployment else None,
        "url": deployment_result.url,
        "replaced": deployment_result.replaced_version,
        "rollback_target": target,
        "last_rollback": last_rollback.at if last_rollback else None,
    }


def monitoring_facts(team_model: TeamModel, data: TierData) -> dict[str, Any]:
    """Return the monitoring plan, the review date and the baseline of the training features."""
    spec = team_model.spec
    rows, baseline = training_feature_baseline(team_model, data)
    return {
        "owner": spec.owner,
        "review_by": (datetime.now(UTC) + timedelta(days=spec.evidence.review_days)).date().isoformat(),
        "monitoring_plan": "model.yaml declares no plan: the owner monitors the model with the baseline below.",
        "baseline_rows": rows,
        "baseline": baseline,
    }


def retention_facts(env: Environment, team_model: TeamModel) -> dict[str, Any]:
    """Return how long the pack is kept, and the head of the decision chain."""
    links = env.approvals().chain_entries()
    years = team_model.spec.evidence.retention_years
    return {
        "keep_until": (datetime.now(UTC) + timedelta(days=365.25 * years)).date().isoformat(),
        "years": years,
        "audit_head": f"{links[-1].number}:{links[-1].hash}" if links else "",
    }


def provenance_statement(
    request: ApprovalRequest,
    evidence: Evidence,
    data: TierData,
    training_result: TrainingResult,
    files: Mapping[str, str],
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the provenance of the model as an in-toto statement with SLSA provenance 1.0.

    `files` are the SHA-256 of the model's files. External parameters are those that the requester chose, internal ones
    those that the platform chose.
    """
    dependencies: list[dict[str, Any]] = [
        {"uri": "git:commit", "digest": {"gitCommit": evidence.commit}},
        {"uri": f"lake:{data.model}?as_of={data.reread_as_of}", "digest": {"sha256": evidence.data_digest}},
    ]
    if evidence.patch_digest:
        dependencies.append({"uri": "file:uncommitted.patch", "digest": {"sha256": evidence.patch_digest}})
    if LOCK_FILE.exists():
        dependencies.append({"uri": "file:requirements.lock", "digest": {"sha256": file_digest(LOCK_FILE)}})
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(files.items())],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://ratchet.example/retrain/v1",
                "externalParameters": {
                    "model": request.model,
                    "tier": data.tier,
                    "as_of": data.as_of,
                    "parameters": dict(parameters),
                    "requested_by": shown_name(request.requested_by, authenticated=request.requester_authenticated),
                },
                "internalParameters": {
                    "environment": request.environment,
                    "parameters": training_result.parameters,
                    "seed": training_result.seed,
                },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": "ratchet:retrain"},
                "metadata": {
                    "invocationId": str(flow_run.id or request.flow_run_id),
                    "finishedOn": datetime.now(UTC).isoformat(timespec="seconds"),
                },
            },
        },
    }


def add_model_to_bom(bom: Mapping[str, Any], spec: ModelSpec, evidence: Evidence) -> dict[str, Any]:
    """Return a CycloneDX bill of materials with the model as its component, and the model card."""
    reference = f"{evidence.model}@{evidence.version}"
    model = {
        "type": "machine-learning-model",
        "bom-ref": reference,
        "name": evidence.model,
        "version": evidence.version,
        "description": spec.description,
        "hashes": [{"alg": "SHA-256", "content": evidence.model_digest}],
        "modelCard": {
            "modelParameters": {
                "task": spec.task,
                "datasets": [
                    {"type": "dataset", "name": spec.data.dataset, "contents": {"properties": [
                        {"name": "ratchet:as-of-digest", "value": evidence.data_digest}]}}
                ],
            },
            "quantitativeAnalysis": {
                "performanceMetrics": [
                    {"type": key, "value": repr(value)} for key, value in sorted(evidence.metrics.items())
                ]
            },
        },
    }  # fmt: skip
    components = list(bom.get("components", []))
    needs = {"ref": reference, "dependsOn": sorted({str(each["bom-ref"]) for each in components if "bom-ref" in each})}
    metadata = {**bom.get("metadata", {}), "component": model}
    return {**bom, "metadata": metadata, "dependencies": [*bom.get("dependencies", []), needs]}

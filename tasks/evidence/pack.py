"""Build the files of a promoted model's evidence pack, and write them."""

import io
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from blocks.approvals.chain import decisions_of
from blocks.environment import Environment
from blocks.records.approvals import ApprovalRequest, ChainEntry
from blocks.tracking.base import EVIDENCE_TAG
from runtime.digests import bytes_digest, file_digest, file_digests, folder_digest, listing_digest
from runtime.signatures import sign_folder
from tasks.approval.rules.evidence import ATTACHED_REPORTS, attachments_name, parse_evidence
from tasks.evidence.facts import (
    add_model_to_bom,
    code_facts,
    comparison_facts,
    data_facts,
    deployment_facts,
    monitoring_facts,
    provenance_statement,
    retention_facts,
    training_facts,
)
from tasks.evidence.rules.page import ITEMS_FILE, PAGE_FILE, evidence_html, items_json, model_card_markdown
from tasks.shared.inventory import LOCK_FILE, bill_of_materials
from tasks.shared.models import TeamModel
from tasks.shared.records import (
    DeploymentResult,
    EvaluationResult,
    EvidencePack,
    TierData,
    TrainingResult,
    ValidationResult,
)
from tasks.shared.rules.refusal import Refusal


def evidence_pack_files(
    env: Environment,
    request: ApprovalRequest,
    team_model: TeamModel,
    data: TierData,
    validation_result: ValidationResult,
    training_result: TrainingResult,
    evaluation_result: EvaluationResult,
    deployment_result: DeploymentResult,
    parameters: Mapping[str, Any],
) -> dict[str, bytes]:
    """Return all files of the pack: content by name.

    Raises:
        Refusal: the reports or the patch are not those that the approved evidence has the digests of.
    """
    evidence = parse_evidence(request.evidence)
    links = [
        link
        for link in env.approvals().chain_entries()
        if link.request_id == request.id or link.hash in evidence.waivers
    ]
    files = {
        "validation.md": validation_result.report_markdown.encode(),
        **_approved_reports(env, request, evidence.attachments_digest),
        **_approved_patch(env, training_result.run_id, evidence.patch_digest),
        **_team_files(team_model),
        "evidence.json": request.evidence.encode(),
        "model.sig": training_result.model_path.with_name(f"{training_result.model_path.name}.sig").read_bytes(),
        "requirements.lock": LOCK_FILE.read_bytes() if LOCK_FILE.exists() else b"",
        "approvals.jsonl": _approvals_jsonl(request, links),
        "preflight.json": deployment_result.preflight_json.encode(),
    }
    hashes = file_digests(training_result.model_path)
    facts: dict[str, Any] = {
        "model.json": {"digest": evidence.model_digest, "files": hashes, "page": training_result.version_url,
                       "holdout_predictions": evaluation_result.predictions_digest},
        "code.json": code_facts(env, request, evidence, training_result),
        "data.json": data_facts(env, team_model, data),
        "training.json": training_facts(team_model, data, training_result, parameters, request.environment),
        "comparison.json": comparison_facts(evidence, files),
        "deployment.json": deployment_facts(env, request, deployment_result),
        "monitoring.json": monitoring_facts(team_model, data),
        "retention.json": retention_facts(env, team_model),
        "provenance.json": provenance_statement(request, evidence, data, training_result, hashes, parameters),
        "sbom.json": add_model_to_bom(bill_of_materials(env.scratch), team_model.spec, evidence),
    }  # fmt: skip
    files |= {name: _to_json(content) for name, content in facts.items()}
    limits_text = files.get("intended-use.md", b"").decode(errors="replace")
    files["card.md"] = model_card_markdown(
        evidence, team_model.spec, data.train_rows, data.holdout_rows, limits_text
    ).encode()
    files = {name: content for name, content in files.items() if content}
    files[PAGE_FILE] = evidence_html(evidence, files, [asdict(decision) for decision in decisions_of(links)]).encode()
    files[ITEMS_FILE] = items_json(files).encode()
    return files


def store_signed_pack(
    env: Environment, model: str, version: str, run_id: str, files: Mapping[str, bytes]
) -> EvidencePack:
    """Write the pack of a version below the environment's folder, sign it, and log it with the version's run.

    Raises:
        Rejected: no key on this machine signs models.
    """
    pack, tracking = env.evidence_folder / model / version / "pack", env.tracking()
    write_pack(pack, files)
    signature = sign_folder(pack, env.signing.signer("models"), {"model": model, "version": version})
    tracking.log_files(run_id, pack.parent, artifact_folder="evidence")
    tracking.tag_version(model, version, {EVIDENCE_TAG: file_digest(signature)})
    return EvidencePack(model=model, version=version, folder=pack, digest=folder_digest(pack))


def write_pack(pack: Path, files: Mapping[str, bytes]) -> None:
    """Write the pack to a staging folder, then move it into place. An existing pack is replaced."""
    pack.parent.mkdir(parents=True, exist_ok=True)
    staging_folder = Path(tempfile.mkdtemp(prefix=".pack-", dir=pack.parent.parent))
    try:
        for name, content in files.items():
            (staging_folder / name).write_bytes(content)
        shutil.rmtree(pack, ignore_errors=True)
        staging_folder.chmod(0o755)
        staging_folder.rename(pack)
    finally:
        shutil.rmtree(staging_folder, ignore_errors=True)


def _approved_reports(env: Environment, request: ApprovalRequest, digest: str | None) -> dict[str, bytes]:
    """Return the reports among the review attachments; none without their digest. MLflow's could be others by now."""
    if not digest:
        return {}
    folder = env.evidence_folder / request.model / request.version / attachments_name(digest)
    found = {path.name: path.read_bytes() for path in folder.glob("*") if path.is_file() and not path.is_symlink()}
    if listing_digest({name: bytes_digest(content) for name, content in found.items()}) != digest:
        raise Refusal(
            "the review attachments are not those that were approved",
            where=str(folder),
            value=digest,
            remedy="Bring the folder back from a backup, and retry the run.",
        )
    return {name: content for name, content in found.items() if name in ATTACHED_REPORTS}


def _approved_patch(env: Environment, run_id: str, digest: str) -> dict[str, bytes]:
    if not digest:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = env.tracking().fetch_files(run_id, "provenance", Path(folder)) / "uncommitted.patch"
        found = file_digest(path) if path.is_file() else "no such file"
        if found == digest:
            return {"uncommitted.patch": path.read_bytes()}
    raise Refusal(
        "the uncommitted changes are not those that were approved",
        where=f"provenance/uncommitted.patch of the run {run_id}",
        value=found,
        remedy="Find out who wrote to the run, and retrain.",
    )


def _team_files(team_model: TeamModel) -> dict[str, bytes]:
    names = {"CARD.md": "intended-use.md", "model.yaml": "model.yaml", "expectations.yaml": "expectations.yaml"}
    return {to: content for name, to in names.items() if (content := team_model.read_file(name)) is not None}


def _approvals_jsonl(request: ApprovalRequest, links: list[ChainEntry]) -> bytes:
    lines = io.StringIO()
    for kind, record in [("request", asdict(request)), *(("link", asdict(link)) for link in links)]:
        lines.write(json.dumps({"type": kind, **record}, default=_json_default, ensure_ascii=False) + "\n")
    return lines.getvalue().encode()


def _to_json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2, sort_keys=True, default=_json_default, ensure_ascii=False).encode()


def _json_default(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, Path):
        return value.name
    raise TypeError(type(value).__name__)

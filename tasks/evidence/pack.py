"""Put together the evidence pack of a promoted model, sign it, and keep it with the model and on the shared folder."""

import io
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from blocks.approvals.base import ApprovalRequest, Link
from blocks.approvals.chain import decisions_of
from blocks.environment import Environment
from tasks.approval.rules.evidence import parse_evidence
from tasks.evidence.facts import (
    code_facts,
    comparison_facts,
    data_facts,
    deployment_facts,
    made_by,
    monitoring_facts,
    retention_facts,
    training_facts,
)
from tasks.evidence.rules.items import LIST, PAGE, list_of
from tasks.evidence.rules.page import card, page
from tasks.evidence.rules.statements import with_model
from tasks.shared.inventory import LOCK, bill_of_materials, model_files
from tasks.shared.models import Model
from tasks.shared.records import Checked, Deployed, Judged, TierData, Trained


def gather_files(
    world: Environment,
    request: ApprovalRequest,
    brought: Model,
    data: TierData,
    checked: Checked,
    trained: Trained,
    judged: Judged,
    deployed: Deployed,
    parameters: Mapping[str, Any],
) -> dict[str, bytes]:
    """Return all files of the pack, by name."""
    evidence = parse_evidence(request.evidence)
    links = [
        link for link in world.approvals().links() if link.request_id == request.id or link.hash in evidence.waivers
    ]
    files = {
        **_evaluation_files(world, trained.run_id),
        **_team_files(brought),
        "evidence.json": request.evidence.encode(),
        "model.sig": trained.artifact.with_name(f"{trained.artifact.name}.sig").read_bytes(),
        "requirements.lock": LOCK.read_bytes() if LOCK.exists() else b"",
        "checks.md": checked.report.encode(),
        "approvals.jsonl": _approvals(request, links),
        "preflight.json": deployed.preflight.encode(),
    }
    hashes = model_files(trained.artifact)
    patch = _patch(world, trained.run_id)
    if patch:
        files["uncommitted.patch"] = patch
    facts: dict[str, Any] = {
        "model.json": {"digest": evidence.model_digest, "files": hashes, "page": trained.version_url,
                       "holdout_predictions": judged.predictions_digest},
        "code.json": code_facts(world, request, evidence, trained),
        "data.json": data_facts(world, brought, data),
        "training.json": training_facts(brought, data, trained, parameters, request.environment),
        "comparison.json": comparison_facts(evidence, files),
        "deployment.json": deployment_facts(world, request, deployed),
        "monitoring.json": monitoring_facts(brought, data),
        "retention.json": retention_facts(world, brought),
        "provenance.json": made_by(request, evidence, data, trained, hashes, parameters),
        "sbom.json": with_model(
            bill_of_materials(world.scratch), name=request.model, version=request.version,
            description=brought.spec.description, task=brought.spec.task, digest=evidence.model_digest,
            dataset=brought.spec.data.dataset, data_digest=evidence.data_digest, metrics=evidence.metrics,
        ),
    }  # fmt: skip
    files |= {name: _json(content) for name, content in facts.items()}
    team = files.get("limits.md", b"").decode(errors="replace")
    rows = {"train": data.train_rows, "holdout": data.holdout_rows}
    spec = brought.spec
    told = card(evidence, description=spec.description, owner=spec.owner, task=spec.task, rows=rows, team=team)
    files["card.md"] = told.encode()
    files = {name: content for name, content in files.items() if content}
    files[PAGE] = page(evidence, files, [asdict(decision) for decision in decisions_of(links)]).encode()
    files[LIST] = list_of(files).encode()
    return files


def write_pack(pack: Path, files: Mapping[str, bytes]) -> None:
    """Write the pack's folder beside its place, then exchange it whole: a repeat replaces what is there."""
    pack.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".pack-", dir=pack.parent.parent))
    try:
        for name, content in files.items():
            (beside / name).write_bytes(content)
        shutil.rmtree(pack, ignore_errors=True)
        beside.chmod(0o755)
        beside.rename(pack)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _evaluation_files(world: Environment, run_id: str) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        kept = world.tracking().fetch_files(run_id, "evaluation", Path(folder))
        return {path.name: path.read_bytes() for path in sorted(kept.iterdir()) if path.name.startswith("evaluation.")}


def _patch(world: Environment, run_id: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = world.tracking().fetch_files(run_id, "made-by", Path(folder)) / "uncommitted.patch"
        return path.read_bytes() if path.exists() else b""


def _team_files(brought: Model) -> dict[str, bytes]:
    names = {"CARD.md": "limits.md", "model.yaml": "model.yaml", "expectations.yaml": "expectations.yaml"}
    return {to: (brought.folder / name).read_bytes() for name, to in names.items() if (brought.folder / name).exists()}


def _approvals(request: ApprovalRequest, links: list[Link]) -> bytes:
    lines = io.StringIO()
    for kind, record in [("request", asdict(request)), *(("link", asdict(link)) for link in links)]:
        lines.write(json.dumps({"type": kind, **record}, default=_time, ensure_ascii=False) + "\n")
    return lines.getvalue().encode()


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2, sort_keys=True, default=_time, ensure_ascii=False).encode()


def _time(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, Path):
        return value.name
    raise TypeError(type(value).__name__)

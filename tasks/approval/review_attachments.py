"""What people are shown beside the evidence: the evaluation with its plot, the checks, what is new in the data.

The files lie in the environment's folder of evidence, under their digest, which is part of what is approved.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blocks.common.errors import NotFound
from blocks.environment import Environment
from runtime.digests import folder_digest
from tasks.approval.rules.evidence import parse_evidence
from tasks.evidence.rules.difference import baseline_differences
from tasks.shared.models import TeamModel
from tasks.shared.reads import resolve_reads
from tasks.shared.records import EvaluationResult, TierData, TrainingResult, ValidationResult
from tasks.shared.rules.refusal import Refusal
from tasks.shared.tiers import training_feature_baseline


def store_review_attachments(
    env: Environment,
    team_model: TeamModel,
    data: TierData,
    validation_result: ValidationResult,
    training_result: TrainingResult,
    evaluation_result: EvaluationResult,
) -> str:
    """Lay the files down and return their digest: a retry finds them there."""
    parent_folder = env.evidence_folder / data.model / training_result.version
    parent_folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".request-", dir=parent_folder) as temporary:
        beside = Path(temporary) / "request"
        beside.mkdir()
        for name, content in review_attachments(
            env, team_model, data, validation_result, training_result, evaluation_result
        ).items():
            (beside / name).write_bytes(content)
        digest = folder_digest(beside)
        final = attachments_folder(env, data.model, training_result.version, digest)
        if final.exists() and folder_digest(final) != digest:
            shutil.rmtree(final)
        if not final.exists():
            beside.rename(final)
    return digest


def attachments_folder(env: Environment, model: str, version: str, digest: str) -> Path:
    """Return where the files of a request lie."""
    return env.evidence_folder / model / version / f"request-{digest[:16]}"


def review_attachments(
    env: Environment,
    team_model: TeamModel,
    data: TierData,
    validation_result: ValidationResult,
    training_result: TrainingResult,
    evaluation_result: EvaluationResult,
) -> dict[str, bytes]:
    """Return the files by name."""
    with tempfile.TemporaryDirectory() as folder:
        found = env.tracking().fetch_files(training_result.run_id, "evaluation", Path(folder))
        files = {name: (found / name).read_bytes() for name in EVALUATION_FILES if (found / name).is_file()}
    difference = json.dumps(
        data_changes(env, team_model, data, evaluation_result.champion_version), sort_keys=True, ensure_ascii=False
    )
    return {**files, "checks.md": validation_result.report_markdown.encode(), "data.json": difference.encode()}


EVALUATION_FILES = ("evaluation.json", "evaluation.png")


def data_changes(env: Environment, team_model: TeamModel, data: TierData, champion: str) -> dict[str, Any]:
    """Return what is new in the data since the version that serves: snapshots that landed, and how features moved."""
    read = resolve_reads(env.lake(), team_model.spec.data, data.reread_time or data.as_of).main
    champion_snapshot, baseline = champion_data_baseline(env, data.model, champion)
    since = -1
    if champion_snapshot:
        try:
            since = env.lake().as_of(read.dataset, champion_snapshot).sequence
        except NotFound:  # of another data set, or the lake has been set up anew
            champion_snapshot = ""
    added = [
        {"id": each.id, "at": each.created_at.isoformat(), "rows": each.rows, "source": each.source}
        for each in read.snapshots
        if each.sequence > since
    ]
    now = training_feature_baseline(team_model, data)[1] if baseline else {}
    return {
        "dataset": read.dataset,
        "as_of": read.id,
        "rows": read.rows,
        "train_rows": data.train_rows,
        "holdout_rows": data.holdout_rows,
        "champion": champion,
        "champion_as_of": champion_snapshot,
        "added": added,
        "features": baseline_differences(baseline, now) if baseline else [],
    }


def champion_data_baseline(env: Environment, model: str, champion: str) -> tuple[str, Mapping[str, Any]]:
    """Return the snapshot that the serving version was made of, and what its training rows looked like.

    "" and nothing where there is none, or what was approved of it cannot be read.
    """
    lines = env.effects().deployments(model, env.name)
    line = next((each for each in lines if each.version == champion and each.request_id), None)
    if not champion or line is None:
        return "", {}
    try:
        evidence = parse_evidence(env.approvals().approval_request(line.request_id).evidence)
    except (NotFound, Refusal):  # released by hand, or by a release of this program long ago
        return "", {}
    kept = env.evidence_folder / model / champion / "pack" / "monitoring.json"
    baseline = json.loads(kept.read_text()).get("baseline", {}) if kept.is_file() else {}
    return evidence.as_of, baseline

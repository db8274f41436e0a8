"""Review attachments of an approval request: evaluation, plot, backtests, expectation results and changes of the data.

They are stored in the environment's evidence folder under their digest. The digest is part of the evidence.
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
from tasks.approval.rules.evidence import ATTACHED_REPORTS, attachments_name, parse_evidence
from tasks.evidence.rules.differences import baseline_differences
from tasks.shared.models import TeamModel
from tasks.shared.records import EvaluationResult, TierData, TrainingResult, ValidationResult
from tasks.shared.rules.refusal import Refusal
from tasks.shared.tables import resolve_reads
from tasks.shared.tiers import training_feature_baseline


def store_review_attachments(
    env: Environment,
    team_model: TeamModel,
    data: TierData,
    validation_result: ValidationResult,
    training_result: TrainingResult,
    evaluation_result: EvaluationResult,
) -> str:
    """Write the review attachments and return their digest. A retry finds them."""
    parent_folder = env.evidence_folder / data.model / training_result.version
    parent_folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".request-", dir=parent_folder) as temporary:
        staging_folder = Path(temporary) / "request"
        staging_folder.mkdir()
        fetched = env.tracking().fetch_files(training_result.run_id, "evaluation", Path(temporary))
        for name in ATTACHED_REPORTS:
            if (fetched / name).is_file():
                shutil.copyfile(fetched / name, staging_folder / name)
        (staging_folder / "validation.md").write_bytes(validation_result.report_markdown.encode())
        changes = data_changes(env, team_model, data, evaluation_result.champion_version)
        (staging_folder / "data.json").write_bytes(json.dumps(changes, sort_keys=True, ensure_ascii=False).encode())
        digest = folder_digest(staging_folder)
        final = attachments_folder(env, data.model, training_result.version, digest)
        if final.exists() and folder_digest(final) != digest:
            shutil.rmtree(final)
        if not final.exists():
            staging_folder.rename(final)
    return digest


def attachments_folder(env: Environment, model: str, version: str, digest: str) -> Path:
    """Return the folder of a request's review attachments."""
    return env.evidence_folder / model / version / attachments_name(digest)


def data_changes(env: Environment, team_model: TeamModel, data: TierData, champion: str) -> dict[str, Any]:
    """Return how the data changed since the deployed version: added snapshots, and the change of each feature."""
    read = resolve_reads(env.lake(), team_model.spec.data, data.reread_as_of).main
    champion_snapshot, baseline = champion_data_baseline(env, data.model, champion)
    since = -1
    if champion_snapshot:
        try:
            since = env.lake().as_of(read.dataset, champion_snapshot).sequence
        except NotFound:  # the snapshot is of another data set, or the lake was set up again
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
    """Return the snapshot and the feature baseline that the deployed version was trained on.

    Both are empty when no version is deployed, or when its approved evidence cannot be read.
    """
    lines = env.effects().deployments(model, env.name)
    line = next((each for each in lines if each.version == champion and each.request_id), None)
    if not champion or line is None:
        return "", {}
    try:
        evidence = parse_evidence(env.approvals().get_request(line.request_id).evidence)
    except (NotFound, Refusal):  # the version was not deployed through an approval request
        return "", {}
    file = env.evidence_folder / model / champion / "pack" / "monitoring.json"
    baseline = json.loads(file.read_text()).get("baseline", {}) if file.is_file() else {}
    return evidence.as_of, baseline

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
from tasks.evidence.rules.difference import differences
from tasks.shared.models import Model
from tasks.shared.reads import fix_reads
from tasks.shared.records import Checked, Judged, TierData, Trained
from tasks.shared.rules.refusal import Refusal
from tasks.shared.tiers import training_baseline


def keep_exhibits(
    world: Environment, brought: Model, data: TierData, checked: Checked, trained: Trained, judged: Judged
) -> str:
    """Lay the files down and return their digest: a retry finds them there."""
    place = world.evidence_folder / data.model / trained.version
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".request-", dir=place) as temporary:
        beside = Path(temporary) / "request"
        beside.mkdir()
        for name, content in exhibits(world, brought, data, checked, trained, judged).items():
            (beside / name).write_bytes(content)
        digest = folder_digest(beside)
        final = exhibits_folder(world, data.model, trained.version, digest)
        if final.exists() and folder_digest(final) != digest:
            shutil.rmtree(final)
        if not final.exists():
            beside.rename(final)
    return digest


def exhibits_folder(world: Environment, model: str, version: str, digest: str) -> Path:
    """Return where the files of a request lie."""
    return world.evidence_folder / model / version / f"request-{digest[:16]}"


def exhibits(
    world: Environment, brought: Model, data: TierData, checked: Checked, trained: Trained, judged: Judged
) -> dict[str, bytes]:
    """Return the files by name."""
    with tempfile.TemporaryDirectory() as folder:
        found = world.tracking().fetch_files(trained.run_id, "evaluation", Path(folder))
        files = {name: (found / name).read_bytes() for name in EVALUATION if (found / name).is_file()}
    difference = json.dumps(data_difference(world, brought, data, judged.champion), sort_keys=True, ensure_ascii=False)
    return {**files, "checks.md": checked.report.encode(), "data.json": difference.encode()}


EVALUATION = ("evaluation.json", "evaluation.png")


def data_difference(world: Environment, brought: Model, data: TierData, champion: str) -> dict[str, Any]:
    """Return what is new in the data since the version that serves: snapshots that landed, and how features moved."""
    read = fix_reads(world.lake(), brought.spec.data, data.read_at or data.as_of).main
    before, baseline = champion_data(world, data.model, champion)
    since = -1
    if before:
        try:
            since = world.lake().as_of(read.dataset, before).sequence
        except NotFound:  # of another data set, or the lake has been set up anew
            before = ""
    added = [
        {"id": each.id, "at": each.created_at.isoformat(), "rows": each.rows, "source": each.source}
        for each in read.snapshots
        if each.sequence > since
    ]
    now = training_baseline(brought, data)[1] if baseline else {}
    return {
        "dataset": read.dataset,
        "as_of": read.id,
        "rows": read.rows,
        "train_rows": data.train_rows,
        "holdout_rows": data.holdout_rows,
        "champion": champion,
        "champion_as_of": before,
        "added": added,
        "features": differences(baseline, now) if baseline else [],
    }


def champion_data(world: Environment, model: str, champion: str) -> tuple[str, Mapping[str, Any]]:
    """Return the snapshot that the serving version was made of, and what its training rows looked like.

    "" and nothing where there is none, or what was approved of it cannot be read.
    """
    lines = world.effects().deployments(model, world.name)
    line = next((each for each in lines if each.version == champion and each.request_id), None)
    if not champion or line is None:
        return "", {}
    try:
        evidence = parse_evidence(world.approvals().approval_request(line.request_id).evidence)
    except (NotFound, Refusal):  # released by hand, or by a release of this program long ago
        return "", {}
    kept = world.evidence_folder / model / champion / "pack" / "monitoring.json"
    baseline = json.loads(kept.read_text()).get("baseline", {}) if kept.is_file() else {}
    return evidence.as_of, baseline

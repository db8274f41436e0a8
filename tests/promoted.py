"""A promoted model, without a stack: every stage's outcome, over the fakes, and the evidence pack made of it."""

import json
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq

from blocks.approvals.base import ApprovalRequest
from blocks.effects.base import Deployment
from blocks.engines.duckdb import DuckDBEngine
from runtime.digests import folder_digest
from runtime.signatures import sign_folder
from tasks.approval.requests import decide, gather
from tasks.approval.rules.evidence import canonical_json, evidence_digest
from tasks.evaluation.rules.evaluation import evaluation_json
from tasks.evaluation.rules.predictions import predictions_digest
from tasks.evaluation.rules.report import evaluation_markdown, evaluation_plot
from tasks.evidence.pack import gather_files, write_pack
from tasks.shared.evaluation import measure
from tasks.shared.models import Model
from tasks.shared.records import Checked, Deployed, Judged, TierData, Trained
from tasks.shared.tiers import materialise
from tasks.validation.rules.parquet_rows import to_frame
from tests.tasks.approval.test_requests import TRAINED
from tests.tasks.sampling.test_sampling import SPEC, append
from tests.tasks.shared.test_champion import NOW, World, artifact_of, register

RULES = "name: price\nminimum_rows: 1\nexpectations: []\n"


@dataclass
class Promoted:
    """What the stages handed on, and where the pack lies."""

    world: World
    brought: Model
    request: ApprovalRequest
    data: TierData
    checked: Checked
    trained: Trained
    judged: Judged
    deployed: Deployed
    pack: Path


def promoted(folder: Path) -> Promoted:
    """Promote version 1 of `price` (weights, over the fakes), and write and sign its evidence pack."""
    world = World.at(folder)
    brought = model_folder(folder / "models" / "price")
    data = materialise(world.lake(), DuckDBEngine(), append(world.lake(), 0, 300), SPEC, "production", world.scratch)
    version = register(world, {"rooms": 1.0})
    artifact = artifact_of(world, version.version)
    sign_folder(artifact, world.signing.signer("models"), {"model": "price"})
    trained = TRAINED.model_copy(
        update={"version": "1", "run_id": version.run_id, "artifact": artifact,
                "model_digest": folder_digest(artifact), "patch_digest": "p" * 64}
    )  # fmt: skip
    judged = judge(world, brought, data, trained)
    checked = Checked(suite="price", rows=300, passed=3, report="# Checks\n\n3 of 3 passed on 300 rows\n")
    shown = replace(gather("price", "local", data, checked, trained, judged), model="price")
    request = world.approvals().request_approval(
        ApprovalRequest("price-1", "price", "local", "1", evidence_digest(shown), canonical_json(shown),
                        "dana@example.com", NOW - timedelta(hours=1), NOW + timedelta(days=7), "run-id",
                        authors=("Nia <nia@example.com>",))
    )  # fmt: skip
    decide(world, request.id, approved=True, by="max@example.com", reason="good <b>work</b>", channel="t", now=NOW)
    world.effects().record_deployment(
        Deployment("d", "price", "local", "1", trained.model_digest, "deploy", "serving", "max@example.com", "", "price-1", NOW)
    )  # fmt: skip
    deployed = Deployed(
        model="price", version="1", replaced="", url="fake://price", seconds=1.0, preflight='{"log": []}'
    )
    made = Promoted(world, brought, request, data, checked, trained, judged, deployed, folder / "evidence" / "pack")
    files = gather_files(world, request, brought, data, checked, trained, judged, deployed, {})
    write_pack(made.pack, files)
    sign_folder(made.pack, world.signing.signer("models"), {"model": "price"})
    return made


def model_folder(folder: Path) -> Model:
    """Lay down what a team brought."""
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text("name: price\n")
    (folder / "expectations.yaml").write_text(RULES)
    (folder / "CARD.md").write_text("# Price\n\nMeant for sellers. Not meant for taxes.\n")
    return Model(folder, SPEC)


def judge(world: World, brought: Model, data: TierData, trained: Trained) -> Judged:
    """Evaluate as `evaluate` does, and keep its report with the run."""
    rows = to_frame(pq.read_table(data.holdout))
    said = 1000 + rows["rooms"].to_numpy()
    evaluation = measure(brought, data, rows, said, None, "", seed=7)
    kept = {
        "evaluation/evaluation.md": evaluation_markdown(
            evaluation, model="price", version="1", champion_version=""
        ).encode(),
        "evaluation/evaluation.png": evaluation_plot(evaluation),
        "evaluation/evaluation.json": evaluation_json(evaluation).encode(),
        "made-by/uncommitted.patch": b"diff --git a b\n",
    }
    for name, content in kept.items():
        (world.scratch / "kept" / name).parent.mkdir(parents=True, exist_ok=True)
        (world.scratch / "kept" / name).write_bytes(content)
    world.tracking().log_files(trained.run_id, world.scratch / "kept")
    return Judged(
        outcome="pass",
        reasons=("it passes its floors",),
        metrics=dict(evaluation.metrics),
        champion="",
        champion_metrics={},
        golden_request="{}",
        golden_predictions=json.dumps(said[:3].tolist()),
        predictions_digest=predictions_digest(said),
    )

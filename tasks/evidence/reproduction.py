"""Reproduce a promoted version: retrain it from its evidence pack alone, and compare the result.

The pack names the commit (and patch), data, parameters, seed and packages. The repository, the lake and the lock file
provide them. All work happens in a temporary folder, which is removed afterwards. Nothing is registered.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow.parquet as pq

from blocks.common.errors import PortError
from blocks.common.git import HISTORY_SECONDS, git
from blocks.environment import Environment
from blocks.trainers.base import Trainer, TrainingJob
from runtime.digests import file_digest
from runtime.signatures import sign_folder
from tasks.approval.rules.evidence import parse_evidence
from tasks.evaluation.rules.evaluation import finite_metrics
from tasks.evaluation.rules.predictions import digest_predictions
from tasks.evidence.rules.differences import differing_inputs, largest_difference, reproduction_verdict
from tasks.evidence.verification import report, verify_pack
from tasks.shared.champion import champion_version
from tasks.shared.evaluation import evaluate_on_holdout
from tasks.shared.inventory import current_inputs, install_lock_file, recorded_inputs
from tasks.shared.models import ROOT, TeamModel, known_models, load_model
from tasks.shared.records import ReproductionResult, TierData
from tasks.shared.rules.git import commit_id
from tasks.shared.rules.refusal import Refusal
from tasks.shared.tables import resolve_reads
from tasks.shared.tiers import content_digest, materialise
from tasks.validation.rules.parquet_rows import to_frame


@dataclass(frozen=True)
class VerifiedPack:
    """An evidence pack whose signature and files were verified."""

    folder: Path

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the content of one of its JSON files."""
        return dict(json.loads((self.folder / name).read_text(encoding="utf-8")))


def versions_to_reproduce(env: Environment, model: str = "", version: str = "") -> list[tuple[str, str]]:
    """Return the (model, version) pairs to reproduce: the named version, or the deployed version of each model."""
    names = [model] if model else known_models(env)
    versions = [(name, version or champion_version(env, name)) for name in names]
    return [(name, each) for name, each in versions if each]


def reproduce_from_pack(
    env: Environment, model: str, version: str, *, fresh_venv: bool = False, log: Any, root: Path = ROOT
) -> ReproductionResult:
    """Retrain in an empty folder and compare.

    When an input is no longer available, the verdict is "not reproducible", with the reason.
    """
    started = time.monotonic()
    with work_folder(env) as work:
        try:
            pack = fetch_verified_pack(env, model, version, work)
            outcome, differs, metrics, digest = rebuild_and_compare(
                env, pack, work, fresh=fresh_venv, log=log, root=root
            )
        except Refusal as no:
            outcome, differs, metrics, digest = "not reproducible", (str(no),), {}, ""
    seconds = time.monotonic() - started
    return ReproductionResult(
        model=model,
        version=version,
        verdict=outcome,
        differing_inputs=differs,
        metrics=metrics,
        predictions_digest=digest,
        seconds=seconds,
    )


def rebuild_and_compare(
    env: Environment, pack: VerifiedPack, work: Path, *, fresh: bool, log: Any, root: Path
) -> tuple[Any, tuple[str, ...], dict[str, float], str]:
    """Restore code, data and packages, train, and return verdict, differences, metrics and predictions digest.

    Raises:
        Refusal: the code, data or packages of the pack are no longer available.
    """
    training = pack.read_json("training.json")
    team_model = restore_code(pack, work / "checkout", root)
    data = restore_data(env, pack, team_model, work)
    python = install_lock_file(pack.folder / "requirements.lock", work) if fresh else ""
    folder = retrain_from_pack(env, pack, team_model, data, work, python, log)
    sign_folder(folder, env.signing.signer("models"), {"allow": team_model.spec.serving.model_dump(mode="json")})
    rows = to_frame(pq.read_table(data.holdout))
    predictions = env.tracking().predict(folder, rows[list(team_model.spec.data.features)])
    metrics, digest = (
        holdout_metrics(team_model, data, predictions, int(training["seed"])),
        digest_predictions(predictions),
    )
    evidence = parse_evidence((pack.folder / "evidence.json").read_text(encoding="utf-8"))
    outcome = reproduction_verdict(
        recorded=evidence.metrics,
        current=metrics,
        predictions_then=pack.read_json("model.json")["holdout_predictions"],
        predictions_now=digest,
    )  # fmt: skip
    if outcome == "bit-identical":
        return outcome, (), metrics, digest
    largest_gap = (largest_difference(evidence.metrics, metrics),)
    inputs = differing_inputs(recorded_inputs(training), current_inputs(python))
    named = inputs or ("no input differs: the training program is not deterministic",)
    return outcome, tuple(filter(None, (*largest_gap, *named))), metrics, digest


def fetch_verified_pack(env: Environment, model: str, version: str, work: Path) -> VerifiedPack:
    """Return the verified pack of a version, from the evidence folder or from its tracked run.

    Raises:
        Refusal: there is no pack, or it is not as it was signed.
    """
    folder = env.evidence_folder / model / version
    if not (folder / "pack").is_dir():
        registered = env.tracking().version(model, version)
        folder = env.tracking().fetch_files(registered.run_id, "evidence", work) if registered else folder
    verification = verify_pack(folder, env.signing.trusted_model_keys)
    if not verification.valid:
        last = report(folder, verification).splitlines()[-1]
        raise Refusal("no valid evidence pack was found", where=f"{model} version {version}", value=last)
    return VerifiedPack(folder / "pack")


def restore_code(pack: VerifiedPack, checkout: Path, root: Path) -> TeamModel:
    """Clone the repository at the pack's commit, apply the patch, and return the model in this checkout.

    Raises:
        Refusal: this repository does not have the commit, or its code differs from the pack.
    """
    code, name = pack.read_json("code.json"), pack.read_json("training.json")["model"]
    patch = pack.folder / "uncommitted.patch"
    _git("clone", "--quiet", "--no-checkout", "--shared", values=[str(root), str(checkout)], folder=root)
    _git("checkout", "--quiet", "--detach", values=[commit_id(code["commit"], "code.json: commit")], folder=checkout)
    if code["patch_digest"]:
        if not patch.exists() or file_digest(patch) != code["patch_digest"]:
            raise Refusal("the patch does not match the evidence", where="uncommitted.patch")
        _git("apply", "--binary", values=[str(patch)], folder=checkout)
    team_model = load_model(name, checkout)
    if team_model.read_file("model.yaml") != (pack.folder / "model.yaml").read_bytes():
        raise Refusal("model.yaml of the commit differs from the pack", where=f"models/{team_model.folder.name}")
    return team_model


def restore_data(env: Environment, pack: VerifiedPack, team_model: TeamModel, work: Path) -> TierData:
    """Repeat the recorded read of the lake, materialise the tier, and return it. Each step must match its digest.

    Raises:
        Refusal: the lake or the split returns other rows than those that the version was trained on.
    """
    recorded = pack.read_json("data.json")
    query = recorded["query"]
    reads = resolve_reads(env.lake(), team_model.spec.data, query["as_of"])
    erased = [f"{each} of {read.dataset}" for read in reads.tables.values() for each in read.erased]
    if erased and recorded["data_digest"] != reads.digest:
        raise Refusal(
            f"rows of the training data were erased for good since: {', '.join(erased)}",
            where=f"the read of the lake as of {query['as_of']}",
            remedy="The evidence stays valid for the digests that it names; the model cannot be trained again on them.",
        )
    _check_same("the read of the lake", recorded["data_digest"], reads.digest)
    rule = str(recorded["holdout"])  # of earlier releases a number: the share by entity
    data = materialise(env.lake(), env.engine(), reads, team_model.spec, query["tier"], work / "scratch", rule)
    _check_same("the training rows", recorded["train_digest"], content_digest(data.train))
    if data.validation_rows:
        _check_same(
            "the validation rows", recorded["validation_digest"], content_digest(data.training_parts["validation"])
        )
    _check_same("the holdout rows", recorded["holdout_digest"], data.holdout_digest)
    return data


def retrain_from_pack(
    env: Environment, pack: VerifiedPack, team_model: TeamModel, data: TierData, work: Path, python: str, log: Any
) -> Path:
    """Run the checkout's training program with the pack's parameters and seed, and return the model folder."""
    training, limits = pack.read_json("training.json"), team_model.spec.training
    trainer = isolated_trainer(env.trainer(), work, python)
    job = TrainingJob(
        name=f"reproduce-{team_model.spec.name.replace('_', '-')[:40]}-{uuid4().hex[:12]}",
        program_folder=team_model.folder,
        channels=data.training_parts,
        hyperparameters={**training["parameters"], "seed": str(training["seed"])},
        environment={
            "MLFLOW_TRACKING_URI": f"sqlite:///{work}/runs.db"
        },  # a training program that uses MLflow logs here
        max_seconds=max(1, int(limits.max_minutes * 60)),
        max_memory_mb=limits.max_memory_mb,
    )
    done = trainer.run(job, on_log_line=log)
    if done.mlflow_folder is None:
        raise Refusal("the training produced no model", where=team_model.spec.name, value=str(done.status))
    return Path(shutil.copytree(done.mlflow_folder, work / "again" / "model", symlinks=True))


def isolated_trainer(trainer: Trainer, work: Path, python: str) -> Trainer:
    """Return the trainer with its jobs below `work`, and with this Python when it runs jobs on this machine.

    Raises:
        Refusal: another Python is requested, but the jobs of this trainer run on other machines.
    """
    fields = type(trainer).model_fields
    if python and "python" not in fields:
        raise Refusal(
            "a fresh virtual environment needs a trainer that runs on this machine", value=type(trainer).__name__
        )
    own: dict[str, Any] = {"root": work / "jobs"} if "root" in fields else {}
    return trainer.model_copy(update={**own, **({"python": python} if python else {})})


def holdout_metrics(team_model: TeamModel, data: TierData, predictions: np.ndarray, seed: int) -> dict[str, float]:
    """Return the metrics on the holdout, measured as in the evaluation."""
    rows = to_frame(pq.read_table(data.holdout))
    return finite_metrics(evaluate_on_holdout(team_model, data, rows, predictions, None, "", seed).metrics)


@contextmanager
def work_folder(env: Environment) -> Iterator[Path]:
    """Create a temporary folder for one reproduction, and remove it afterwards."""
    home = env.scratch / "reproduce"
    home.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=home))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_same(what: str, then: str, now: str) -> None:
    if then != now:
        raise Refusal(f"digest mismatch of {what}", value=now[:12], remedy=f"The pack has {then[:12]}.")


def _git(command: str, *options: str, values: list[str], folder: Path) -> None:
    try:
        git(command, *options, values=values, folder=folder, seconds=HISTORY_SECONDS)
    except PortError as cause:
        remedy = "Fetch the commit into this repository."
        raise Refusal("the code of the pack cannot be restored", value=str(cause)[-300:], remedy=remedy) from cause

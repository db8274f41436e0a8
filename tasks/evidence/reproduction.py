"""Train a promoted version again from its evidence pack alone, and say whether the same model comes of it.

The pack says which commit (and patch), data, parameters, seed and packages; the repository, the lake and the lock file
give them. Everything happens in a folder of its own, which is removed afterwards; nothing is registered.
"""

import json
import shutil
import subprocess
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

from blocks.environment import Environment
from blocks.trainers.base import Trainer, TrainingJob
from runtime.digests import file_digest
from runtime.signatures import sign_folder
from tasks.approval.rules.evidence import parse_evidence
from tasks.evaluation.rules.evaluation import finite
from tasks.evaluation.rules.predictions import predictions_digest
from tasks.evidence.rules.reproduction import differing_inputs, largest_difference, verdict
from tasks.evidence.verification import check_pack, report
from tasks.shared.champion import champion_version
from tasks.shared.evaluation import measure
from tasks.shared.inventory import inputs_now, inputs_then, install
from tasks.shared.models import ROOT, Model, load_model
from tasks.shared.namespaces import known_models
from tasks.shared.reads import fix_reads
from tasks.shared.records import Reproduced, TierData
from tasks.shared.rules.refusal import Refusal
from tasks.shared.tiers import content_digest, materialise
from tasks.validation.rules.parquet_rows import to_frame


@dataclass(frozen=True)
class Pack:
    """An evidence pack that was verified, as it is read here."""

    folder: Path

    def facts(self, name: str) -> dict[str, Any]:
        """Return one of its JSON files."""
        return dict(json.loads((self.folder / name).read_text(encoding="utf-8")))


def promoted(world: Environment, model: str = "", version: str = "") -> list[tuple[str, str]]:
    """Return model and version of what is to be reproduced: the one named, or what serves of each model."""
    names = [model] if model else known_models(world)
    found = [(name, version or champion_version(world, name)) for name in names]
    return [(name, each) for name, each in found if each]


def reproduced(
    world: Environment, model: str, version: str, *, fresh: bool = False, log: Any = print, root: Path = ROOT
) -> Reproduced:
    """Train again in a clean folder and compare; what cannot be had again is told as such, and never guessed."""
    started = time.monotonic()
    with clean_folder(world) as work:
        try:
            pack = find_pack(world, model, version, work)
            outcome, differs, metrics, digest = again(world, pack, work, fresh=fresh, log=log, root=root)
        except Refusal as no:
            outcome, differs, metrics, digest = "not reproducible", (str(no),), {}, ""
    seconds = time.monotonic() - started
    return Reproduced(
        model=model, version=version, verdict=outcome, differs=differs, metrics=metrics, digest=digest, seconds=seconds
    )


def again(
    world: Environment, pack: Pack, work: Path, *, fresh: bool, log: Any, root: Path = ROOT
) -> tuple[Any, tuple[str, ...], dict[str, float], str]:
    """Rebuild code, data and packages, train, and return verdict, differing inputs, metrics, and predictions' digest.

    Raises:
        Refusal: code, data or packages are not to be had as they were.
    """
    training = pack.facts("training.json")
    brought = code_again(pack, work / "checkout", root)
    data = data_again(world, pack, brought, work)
    python = install(pack.folder / "requirements.lock", work) if fresh else ""
    folder = trained_again(world, pack, brought, data, work, python, log)
    sign_folder(folder, world.signing.signer("models"), {"allow": brought.spec.serving.model_dump(mode="json")})
    rows = to_frame(pq.read_table(data.holdout))
    said = world.tracking().predict(folder, rows[list(brought.spec.data.features)])
    metrics, digest = metrics_of(brought, data, said, int(training["seed"])), predictions_digest(said)
    evidence = parse_evidence((pack.folder / "evidence.json").read_text(encoding="utf-8"))
    outcome = verdict(
        then=evidence.metrics, now=metrics, predictions_then=pack.facts("model.json")["holdout_predictions"],
        predictions_now=digest,
    )  # fmt: skip
    if outcome == "bit-identical":
        return outcome, (), metrics, digest
    gap = (largest_difference(evidence.metrics, metrics),)
    inputs = differing_inputs(inputs_then(training), inputs_now(python))
    named = inputs or ("no input differs: the training program is not deterministic",)
    return outcome, tuple(filter(None, (*gap, *named))), metrics, digest


def find_pack(world: Environment, model: str, version: str, work: Path) -> Pack:
    """Return the version's pack, from the folder of packs or from its run, after it was verified.

    Raises:
        Refusal: there is none, or it is not as it was signed.
    """
    kept = world.evidence_folder / model / version
    if not (kept / "pack").is_dir():
        found = world.tracking().version(model, version)
        kept = world.tracking().fetch_files(found.run_id, "evidence", work) if found else kept
    checked = check_pack(kept, world.signing.models_trusted)
    if not checked.sound:
        last = report(kept, checked).splitlines()[-1]
        raise Refusal("there is no sound evidence pack", where=f"{model} version {version}", value=last)
    return Pack(kept / "pack")


def code_again(pack: Pack, checkout: Path, root: Path) -> Model:
    """Clone the repository at the pack's commit, apply the patch, and return the model of that checkout.

    Raises:
        Refusal: the commit is not in this repository, or the code that comes of it is not that of the pack.
    """
    code, name = pack.facts("code.json"), pack.facts("training.json")["model"]
    patch = pack.folder / "uncommitted.patch"
    _git("clone", "--quiet", "--no-checkout", "--shared", str(root), str(checkout))
    _git("-C", str(checkout), "checkout", "--quiet", "--detach", code["commit"])
    if code["patch_digest"]:
        if not patch.exists() or file_digest(patch) != code["patch_digest"]:
            raise Refusal("the patch is not that of the evidence", where="uncommitted.patch")
        _git("-C", str(checkout), "apply", "--binary", str(patch))
    brought = load_model(name, checkout)
    if (brought.folder / "model.yaml").read_bytes() != (pack.folder / "model.yaml").read_bytes():
        raise Refusal("model.yaml of the commit is not that of the pack", where=f"models/{brought.folder.name}")
    return brought


def data_again(world: Environment, pack: Pack, brought: Model, work: Path) -> TierData:
    """Read the lake as of then, lay the tier down anew, and return it; each step is held against its digest.

    Raises:
        Refusal: the lake or the split does not return the rows that the version was trained on.
    """
    then = pack.facts("data.json")
    query = then["query"]
    reads = fix_reads(world.lake(), brought.spec.data, query["as_of"])
    _same("the read of the lake", then["data_digest"], reads.digest)
    data = materialise(world.lake(), world.engine(), reads, brought.spec, query["tier"], work / "scratch")
    _same("the rows that train", then["train_digest"], content_digest(data.train))
    _same("the rows that decide", then["holdout_digest"], data.holdout_digest)
    return data


def trained_again(
    world: Environment, pack: Pack, brought: Model, data: TierData, work: Path, python: str, log: Any
) -> Path:
    """Run the training program of the checkout with the pack's parameters and seed; return its model folder."""
    training, limits = pack.facts("training.json"), brought.spec.training
    trainer = own_trainer(world.trainer(), work, python)
    job = TrainingJob(
        name=f"again-{brought.spec.name.replace('_', '-')[:40]}-{uuid4().hex[:12]}",
        program=brought.folder,
        channels={"train": data.train},
        hyperparameters={**training["parameters"], "seed": str(training["seed"])},
        environment={"MLFLOW_TRACKING_URI": f"sqlite:///{work}/runs.db"},  # where a program that tracks may do so
        max_seconds=max(1, int(limits.max_minutes * 60)),
        max_memory_mb=limits.max_memory_mb,
    )
    done = trainer.run(job, log=log)
    folders = [] if done.model is None else [done.model, done.model / "model"]
    found = next((folder for folder in folders if (folder / "MLmodel").is_file()), None)
    if found is None:
        raise Refusal("the training left no model", where=brought.spec.name, value=str(done.status))
    return Path(shutil.copytree(found, work / "again" / "model"))


def own_trainer(trainer: Trainer, work: Path, python: str) -> Trainer:
    """Return the trainer, its jobs below `work` and with this Python where it runs them on this machine.

    Raises:
        Refusal: another Python is asked for, and this trainer's jobs run elsewhere.
    """
    fields = type(trainer).model_fields
    if python and "python" not in fields:
        raise Refusal("a fresh environment is made on this machine alone", value=type(trainer).__name__)
    own: dict[str, Any] = {"root": work / "jobs"} if "root" in fields else {}
    return trainer.model_copy(update={**own, **({"python": python} if python else {})})


def metrics_of(brought: Model, data: TierData, said: np.ndarray, seed: int) -> dict[str, float]:
    """Return the metrics on the holdout, as the evaluation measures them."""
    rows = to_frame(pq.read_table(data.holdout))
    return finite(measure(brought, data, rows, said, None, "", seed).metrics)


@contextmanager
def clean_folder(world: Environment) -> Iterator[Path]:
    """Make a folder for one reproduction, and remove it afterwards."""
    home = world.scratch / "reproduce"
    home.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=home))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _same(what: str, then: str, now: str) -> None:
    if then != now:
        raise Refusal(f"{what} is not what the version was trained with", value=now[:12], remedy=f"It was {then[:12]}.")


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refusal("the code is not to be had as it was", where=f"git {arguments[0]}", value=done.stderr[-300:],
                      remedy="Fetch the commit into this repository.")  # fmt: skip

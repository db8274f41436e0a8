"""A fake tracking server: runs and versions in memory, model folders on disk."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, PrivateAttr

from blocks.common.errors import Conflict, NotFound, Rejected, Unavailable
from blocks.records.collectable import Collectable
from blocks.records.tracking import ModelVersion, TrackingRun
from blocks.tracking.base import KEEP_TAG, KEY_TAG, PredictFunction, Tracking
from blocks.tracking.checks import cast_to_signature, check_filter_value, check_finite

MODEL_FILE, CLASSES_FILE = "fake_model.json", "fake_classes.json"


class FakeTracking(Tracking):
    """Runs and versions in memory. Its models are weights of number columns, and predict probabilities."""

    _block_type_name = "Ratchet tracking (fake)"
    _block_type_slug = "ratchet-tracking-fake"

    root: Path = Field(description="Folder for the runs' files and models.")
    available: bool = Field(default=True, description="False: every call raises Unavailable.")

    _runs: dict[str, TrackingRun] = PrivateAttr(default_factory=dict)
    _keys: dict[tuple[str, str], str] = PrivateAttr(default_factory=dict)
    _parents: dict[str, str] = PrivateAttr(default_factory=dict)
    _versions: dict[tuple[str, str], ModelVersion] = PrivateAttr(default_factory=dict)
    _numbers_by_key: dict[tuple[str, str], str] = PrivateAttr(default_factory=dict)
    _datasets: dict[str, list[dict[str, object]]] = PrivateAttr(default_factory=dict)
    _clock: Callable[[], datetime] = PrivateAttr(default_factory=lambda: lambda: datetime.now(UTC))

    def timed(self, clock: Callable[[], datetime]) -> "FakeTracking":
        """Use this clock for the start and end of runs."""
        self._clock = clock
        return self

    def log_model(self, run_id: str, weights: Mapping[str, float], classes: Sequence[str] = ()) -> None:
        """Log a model to the run, as a training program does: a weight for each number column, and its `classes_`."""
        folder = self.root / self.run(run_id).id / "model"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL_FILE).write_text(json.dumps(dict(weights), sort_keys=True))
        if classes:
            (folder / CLASSES_FILE).write_text(json.dumps(list(classes)))

    def datasets(self, run_id: str) -> tuple[dict[str, object], ...]:
        """Return the data sets that `log_dataset` recorded for the run."""
        return tuple(self._datasets.get(self.run(run_id).id, ()))

    def open_run(
        self,
        experiment: str,
        *,
        key: str,
        name: str,
        tags: Mapping[str, str] | None = None,
        parent: str | None = None,
    ) -> TrackingRun:
        """Return the run with `key`, set to running again, or start one; see `Tracking.open_run`."""
        self._check_available()
        if run_id := self._keys.get((experiment, check_filter_value(key))):
            self._runs[run_id] = replace(self._runs[run_id], status="RUNNING", ended=None)
            return self._runs[run_id]
        run_id = f"run-{len(self._runs) + 1}"
        own = {**(tags or {}), "mlflow.runName": name, KEY_TAG: key}
        own |= {"mlflow.parentRunId": parent} if parent else {}
        page, now = f"fake://runs/{run_id}", self._clock()
        self._runs[run_id] = TrackingRun(run_id, experiment, "RUNNING", page, {}, {}, own, started=now)
        self._keys[experiment, key] = run_id
        if parent:
            self._parents[run_id] = parent
        return self._runs[run_id]

    def job_environment(self, run_id: str) -> Mapping[str, str]:
        """Return the run's id and an empty URI, so that a real training program tracks nothing."""
        return {"MLFLOW_TRACKING_URI": "", "MLFLOW_RUN_ID": run_id}

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add to a run; see `Tracking.log`."""
        check_finite(run_id, metrics or {})
        run, logged = self.run(run_id), {key: str(value) for key, value in (params or {}).items()}
        if changed := [key for key, value in logged.items() if run.params.get(key, value) != value]:
            raise Rejected(f"run {run_id}: parameters {changed} were logged with other values")
        self._runs[run_id] = replace(
            run,
            params={**run.params, **logged},
            metrics={**run.metrics, **(metrics or {})},
            tags={**run.tags, **(tags or {})},
        )

    def log_dataset(self, run_id: str, *, name: str, digest: str, source: str, rows: int, context: str) -> None:
        """Record a data set that the run used."""
        record = {"name": name, "digest": digest, "source": source, "rows": rows, "context": context}
        self._datasets.setdefault(self.run(run_id).id, []).append(record)

    def log_files(self, run_id: str, folder: Path, artifact_folder: str = "") -> None:
        """Store all files below `folder` with the run."""
        shutil.copytree(folder, self.root / self.run(run_id).id / "files" / artifact_folder, dirs_exist_ok=True)

    def fetch_files(self, run_id: str, under: str, folder: Path) -> Path:
        """Copy the run's files in `under` to `folder`/`under`."""
        stored, to = self.root / self.run(run_id).id / "files" / under, folder / under
        to.mkdir(parents=True, exist_ok=True)
        if stored.is_dir():
            shutil.copytree(stored, to, dirs_exist_ok=True)
        return to

    def close_run(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """End a run."""
        self._runs[run_id] = replace(self.run(run_id), status=status, ended=self._clock())

    def run(self, run_id: str) -> TrackingRun:
        """Return a run. Raises NotFound."""
        self._check_available()
        if run_id not in self._runs:
            raise NotFound(f"no run {run_id!r}; there are {sorted(self._runs)}")
        return self._runs[run_id]

    def children(self, run_id: str) -> tuple[TrackingRun, ...]:
        """Return the runs opened with this one as parent, oldest first."""
        self.run(run_id)
        return tuple(run for run in self._runs.values() if self._parents.get(run.id) == run_id)

    def runs(self, experiment: str, since: datetime | None = None) -> tuple[TrackingRun, ...]:
        """Return the experiment's runs, oldest first; see `Tracking.runs`."""
        self._check_available()
        own = [run for run in self._runs.values() if run.experiment == experiment]
        return tuple(run for run in own if since is None or (run.started is not None and run.started >= since))

    def experiments(self) -> tuple[str, ...]:
        """Return the names of all experiments, sorted."""
        self._check_available()
        return tuple(sorted({experiment for experiment, _ in self._keys}))

    def register(self, name: str, run_id: str, *, key: str, tags: Mapping[str, str]) -> ModelVersion:
        """Register the run's model, once a key; see `Tracking.register`."""
        self._check_available()
        if number := self._numbers_by_key.get((name, check_filter_value(key))):
            return self._versions[name, number]
        if not (self.root / self.run(run_id).id / "model" / MODEL_FILE).is_file():
            raise NotFound(f"run {run_id} logged no model named 'model'")
        number = str(1 + max((int(n) for (model, _), n in self._numbers_by_key.items() if model == name), default=0))
        own, page = {**tags, KEY_TAG: key}, f"fake://models/{name}/{number}"
        self._versions[name, number] = ModelVersion(name, number, run_id, page, own, ())
        self._numbers_by_key[name, key] = number
        return self._versions[name, number]

    def version(self, name: str, reference: str) -> ModelVersion | None:
        """Return the version by number ("3") or alias ("@champion"), or None."""
        self._check_available()
        if not reference.startswith("@"):
            return self._versions.get((name, reference))
        alias, own = reference[1:], [v for (model, _), v in self._versions.items() if model == name]
        return next((version for version in own if alias in version.aliases), None)

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """Return all registered versions, oldest first."""
        self._check_available()
        return tuple(version for (model, _), version in self._versions.items() if model == name)

    def collectables(self, names: Sequence[str]) -> tuple[Collectable, ...]:
        """Return runs, their models and versions; a version was last used with its run."""
        return tuple(artifact for name in names for artifact in self._artifacts_of(name))

    def size_bytes(self, key: str) -> int:
        """Return the bytes of its files; see `ArtifactOwner.size_bytes`."""
        return sum(file.stat().st_size for file in self._files(key).rglob("*") if file.is_file())

    def delete_collectables(self, key: str) -> None:
        """Delete the artifact; see `ArtifactOwner.delete_collectables`."""
        self._check_available()
        kind, _, name = key.partition(":")
        shutil.rmtree(self._files(key), ignore_errors=True)
        if kind == "run" and (run := self._runs.pop(name, None)):
            self._keys.pop((run.experiment, run.tags[KEY_TAG]), None)
        if kind == "version":
            self._versions.pop((name.rpartition("/")[0], name.rpartition("/")[2]), None)

    def _artifacts_of(self, name: str) -> Iterator[Collectable]:
        used = {run.id: run.ended or run.started or datetime.now(UTC) for run in self.runs(name)}
        for run in self.runs(name):
            model = [f"model:{run.id}"] if (self.root / run.id / "model").is_dir() else []
            parent = [f"run:{self._parents[run.id]}"] if run.id in self._parents else []
            reason = "it is running" if run.status == "RUNNING" else ""
            if KEEP_TAG in run.tags:
                reason = f"a person tagged it {KEEP_TAG}"
            yield Collectable(f"run:{run.id}", f"run {run.id}", used[run.id], (*model, *parent), reason)
            yield from (Collectable(key, key, used[run.id]) for key in model)
        for version in self.versions(name):
            own, run_id = f"{name}/{version.version}", version.run_id
            needs = (f"run:{run_id}", f"model:{run_id}", f"fetched-model:{own}")
            yield Collectable(f"version:{own}", f"version {own}", used.get(run_id, datetime.now(UTC)), needs)

    def _files(self, key: str) -> Path:
        kind, _, name = key.partition(":")
        folders = {"run": self.root / name / "files", "model": self.root / name / "model"}
        folders["version"] = self.root / "none"
        if kind not in folders:
            raise Rejected(f"the fake tracking server has no {key!r}; it was not deleted")
        return folders[kind]

    def tag_version(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Add or replace tags of a version."""
        existing = self._require_version(name, version)
        self._versions[name, version] = replace(existing, tags={**existing.tags, **tags})

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Set the alias to the version, and remove it from others."""
        self._require_version(name, version)
        for (model, number), existing in list(self._versions.items()):
            others = {other for other in existing.aliases if other != alias or model != name}
            own = {alias} if (model, number) == (name, version) else set()
            self._versions[model, number] = replace(existing, aliases=tuple(sorted(others | own)))

    def fetch_model(self, name: str, version: str, folder: Path) -> Path:
        """Copy the version's artifact to `folder`/model; see `Tracking.fetch_model`."""
        registered, model, note = self._require_version(name, version), folder / "model", folder / "source.txt"
        if model.is_dir():
            if not note.exists() or note.read_text() != registered.url:
                raise Conflict(f"{model} holds another model than {registered.url}; give another folder")
            return model
        shutil.copytree(self.root / registered.run_id / "model", model)
        note.write_text(registered.url)
        if (signature := self.root / registered.run_id / "files" / "signature" / "model.sig").exists():
            shutil.copyfile(signature, folder / "model.sig")
        return model

    def load_model(self, artifact: Path) -> PredictFunction:
        """Return a function that predicts probabilities (rows, 2): the logistic function of the weighted sum."""
        try:
            weights = json.loads((artifact / MODEL_FILE).read_text())
        except (OSError, ValueError) as cause:
            raise Rejected(f"model {artifact} does not load: {cause}") from cause

        def predict(frame: pd.DataFrame) -> np.ndarray:
            rows = cast_to_signature(frame, dict.fromkeys(weights, "double"))
            try:
                values = rows.to_numpy(dtype=np.float64)
            except ValueError as cause:
                raise Rejected(f"model {artifact} rejects columns {list(rows)}: {cause}") from cause
            positive = 1 / (1 + np.exp(-values @ np.array(list(weights.values()))))
            return np.column_stack([1 - positive, positive])

        return predict

    def model_classes(self, artifact: Path) -> tuple[str, ...] | None:
        """Return the classes that were logged with the model; None without."""
        file = artifact / CLASSES_FILE
        return tuple(json.loads(file.read_text())) if file.exists() else None

    def _check_available(self) -> None:
        if not self.available:
            raise Unavailable("the fake tracking server is down; set `available`")

    def _require_version(self, name: str, version: str) -> ModelVersion:
        if (existing := self.version(name, version)) is None:
            raise NotFound(f"no version {version!r} of model {name!r}; there are {sorted(self._versions)}")
        return existing

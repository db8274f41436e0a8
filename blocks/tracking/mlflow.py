"""Tracking by MLflow: an embedded file, a server, or one that SageMaker manages, depending on the URI.

The adapter uses `MlflowClient` only: no active run and no global URI. The idempotency key is the tag `ratchet.key`. The
adapter searches for the key before it creates an object and again after that. If two processes create one at the same
time, the older one remains.
"""

import json
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from blocks.common.errors import Conflict, Corrupt, NotFound, Rejected
from blocks.records.tracking import ModelVersion, TrackingRun
from blocks.tracking.base import KEY_TAG, PredictFunction, Tracking
from blocks.tracking.checks import cast_to_signature, check_filter_value, check_finite
from blocks.tracking.mlflow_server import MlflowServer, all_pages, ignored_if_exists, time_from_ms
from blocks.tracking.predictor_process import as_predictions, shared_predictor

MODEL_ARTIFACT = "model"
"""The name under which a training program logs its model."""
SIGNATURE_FOLDER = "signature"
"""The run's artifact folder that holds the model's signature."""
MAX_DIGEST_LENGTH = 36
"""Maximum length of a data set's digest in MLflow; the data set's profile has the whole digest."""


class MlflowTracking(MlflowServer, Tracking):
    """Runs and model versions in MLflow."""

    _block_type_name = "Ratchet tracking: MLflow"
    _block_type_slug = "ratchet-tracking-mlflow"

    ui_url: str = Field(default="", description="URL of MLflow's pages; empty: tracking_uri.")
    trusted_keys: list[str] = Field(default=[], description="Public keys whose models are loaded, one line each.")

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
        with self._port_errors(f"MLflow experiment {experiment!r}"):
            experiment_id = self._experiment_id(experiment)
            if found := self._tagged_runs(experiment_id, KEY_TAG, check_filter_value(key)):
                self.client.update_run(found[0].info.run_id, status="RUNNING")
                return self.run(found[0].info.run_id)
            own = {**(tags or {}), KEY_TAG: key, **({"mlflow.parentRunId": parent} if parent else {})}
            created = self.client.create_run(experiment_id, run_name=name, tags=own)
            first = self._tagged_runs(experiment_id, KEY_TAG, key)[0]
            if first.info.run_id != created.info.run_id:  # another process was first
                self.client.delete_run(created.info.run_id)
            return self._run(first)

    def job_environment(self, run_id: str) -> Mapping[str, str]:
        """Return the variables with which a training program joins the run."""
        return {"MLFLOW_TRACKING_URI": self.tracking_uri, "MLFLOW_RUN_ID": run_id}

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add to a run; see `Tracking.log`."""
        from mlflow.entities import Metric, Param, RunTag

        check_finite(run_id, metrics or {})
        now = int(time.time() * 1000)
        parts = {
            "params": [Param(key, str(value)) for key, value in (params or {}).items()],
            "metrics": [Metric(key, float(value), now, 0) for key, value in (metrics or {}).items()],
            "tags": [RunTag(key, str(value)) for key, value in (tags or {}).items()],
        }
        with self._port_errors(f"MLflow run {run_id}"):
            for part, values in parts.items():
                for start in range(0, len(values), 100):  # MLflow's limit for each kind in one call
                    self.client.log_batch(run_id, **{part: values[start : start + 100]})

    def log_dataset(self, run_id: str, *, name: str, digest: str, source: str, rows: int, context: str) -> None:
        """Record a data set that the run used; see `Tracking.log_dataset`."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile = json.dumps({"num_rows": rows, "digest": digest})
        location = json.dumps({"uri": source})
        dataset = Dataset(name, digest[:MAX_DIGEST_LENGTH], "ratchet", location, profile=profile)
        used = DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
        with self._port_errors(f"MLflow run {run_id}"):
            self.client.log_inputs(run_id, datasets=[used])

    def log_files(self, run_id: str, folder: Path, artifact_folder: str = "") -> None:
        """Store all files below `folder` with the run; see `Tracking.log_files`."""
        with self._port_errors(f"MLflow run {run_id}"):
            self.client.log_artifacts(run_id, str(folder), artifact_folder or None)

    def fetch_files(self, run_id: str, under: str, folder: Path) -> Path:
        """Download the run's files in the artifact folder `under`; see `Tracking.fetch_files`."""
        to = folder / under
        to.mkdir(parents=True, exist_ok=True)
        with self._port_errors(f"MLflow run {run_id}"):
            if self.client.list_artifacts(run_id, under):
                self._download(folder, run_id=run_id, artifact_path=under)
        return to

    def close_run(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """End a run."""
        with self._port_errors(f"MLflow run {run_id}"):
            self.client.set_terminated(run_id, status)

    def run(self, run_id: str) -> TrackingRun:
        """Return a run. Raises NotFound."""
        with self._port_errors(f"MLflow run {run_id}"):
            return self._run(self.client.get_run(run_id))

    def children(self, run_id: str) -> tuple[TrackingRun, ...]:
        """Return the runs opened with this one as parent, oldest first."""
        with self._port_errors(f"MLflow run {run_id}"):
            experiment_id = self.client.get_run(run_id).info.experiment_id
            return tuple(self._run(run) for run in self._tagged_runs(experiment_id, "mlflow.parentRunId", run_id))

    def runs(self, experiment: str, since: datetime | None = None) -> tuple[TrackingRun, ...]:
        """Return the experiment's runs, oldest first; see `Tracking.runs`."""
        with self._port_errors(f"MLflow experiment {experiment!r}"):
            existing = self.client.get_experiment_by_name(experiment)
            if existing is None:
                return ()
            condition = f"attributes.start_time >= {int(since.timestamp() * 1000)}" if since else ""
            return tuple(self._run(run, experiment) for run in self._search_runs(existing.experiment_id, condition))

    def experiments(self) -> tuple[str, ...]:
        """Return the names of all experiments, sorted."""
        with self._port_errors("the list of MLflow's experiments"):
            return tuple(sorted(each.name for each in all_pages(self.client.search_experiments)))

    def register(self, name: str, run_id: str, *, key: str, tags: Mapping[str, str]) -> ModelVersion:
        """Register the run's model, once a key; see `Tracking.register`."""
        with self._port_errors(f"MLflow model {name!r}"):
            keyed = f"tags.`{KEY_TAG}` = '{check_filter_value(key)}'"
            if existing := self._search_versions(name, keyed):
                return self._version(existing[0])
            source, model_id = self._logged_model(run_id)
            with ignored_if_exists():
                self.client.create_registered_model(name)
            created = self.client.create_model_version(
                name, source, run_id, {**tags, KEY_TAG: key}, await_creation_for=60, model_id=model_id
            )
            first = self._search_versions(name, keyed)[0]
            if first.version != created.version:  # another process was first
                self.client.delete_model_version(name, created.version)
            return self._version(first)

    def version(self, name: str, reference: str) -> ModelVersion | None:
        """Return the version by number ("3") or alias ("@champion"), or None."""
        try:
            with self._port_errors(f"MLflow model {name!r}"):
                if reference.startswith("@"):
                    reference = str(self.client.get_model_version_by_alias(name, reference[1:]).version)
                if not reference.isdigit():
                    return None
                return self._version(self.client.get_model_version(name, reference))
        except NotFound:
            return None

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """Return all registered versions, oldest first."""
        with self._port_errors(f"MLflow model {name!r}"):
            return tuple(self._version(each) for each in self._search_versions(name))

    def tag_version(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Add or replace tags of a version."""
        with self._port_errors(f"MLflow model {name!r} version {version}"):
            for key, value in tags.items():
                self.client.set_model_version_tag(name, version, key, value)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Set the alias to the version."""
        with self._port_errors(f"MLflow model {name!r} version {version}"):
            self.client.set_registered_model_alias(name, alias, version)

    def fetch_model(self, name: str, version: str, folder: Path) -> Path:
        """Download the version's artifact atomically to `folder`/model; see `Tracking.fetch_model`.

        Raises:
            NotFound: no such version.
            Conflict: `folder` holds the model of another version.
            Corrupt: the artifact is not an MLflow model folder.
        """
        with self._port_errors(f"MLflow model {name!r} version {version}"):
            source = str(self.client.get_model_version_download_uri(name, version))
            model, note = folder / MODEL_ARTIFACT, folder / "source.txt"
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / f"{MODEL_ARTIFACT}.sig").exists():
                self._fetch_signature(name, version, folder)
            if model.is_dir():
                if (existing := note.read_text() if note.exists() else "another") != source:
                    raise Conflict(f"{model} holds the model of {existing}, not of {source}; give another folder")
                return model
            note.write_text(source)
            self._download_model(source, model)
            return model

    def warm_up(self) -> None:
        """Start the prediction process, which takes three seconds, and import MLflow's model reader."""
        shared_predictor(self.trusted_keys)
        import_module("mlflow.models")

    def load_model(self, artifact: Path) -> PredictFunction:
        """Load a downloaded model once, in a process without credentials; see `Tracking.load_model`.

        That process verifies the model's signature against `trusted_keys`, and inspects its content, before loading.
        """
        self._configure_mlflow()
        from mlflow.models import Model

        try:
            schema = Model.load(str(artifact)).get_input_schema()
        except Exception as cause:
            raise Rejected(f"model {artifact} does not load: {str(cause)[:500]}") from cause
        predict_rows = shared_predictor(self.trusted_keys).load(artifact)

        def predict(frame: pd.DataFrame) -> np.ndarray:
            needed = [spec for spec in schema or () if spec.required or spec.name in frame.columns]
            kinds = {spec.name: getattr(spec.type, "name", "") for spec in needed}
            rows = cast_to_signature(frame, kinds) if kinds and all(kinds) else frame
            return as_predictions(predict_rows(rows), artifact, len(frame))

        return predict

    def model_classes(self, artifact: Path) -> tuple[str, ...] | None:
        """Return the labels of the model's `classes_` in their order; see `Tracking.model_classes`."""
        return shared_predictor(self.trusted_keys).classes(artifact)

    def _experiment_id(self, name: str) -> str:
        """Return the id of the experiment; create it if it does not exist."""
        if (existing := self.client.get_experiment_by_name(name)) is None:
            with ignored_if_exists():
                self.client.create_experiment(name)
            existing = self.client.get_experiment_by_name(name)
        return str(existing.experiment_id)

    def _tagged_runs(self, experiment_id: str, tag: str, value: str) -> list[Any]:
        """Return the runs with the tag, oldest first."""
        return self._search_runs(experiment_id, f"tags.`{tag}` = '{value}'")

    def _search_runs(self, experiment_id: str, condition: str) -> list[Any]:
        """Return all runs that meet the condition, oldest first; runs of one millisecond are ordered by id."""
        runs = all_pages(self.client.search_runs, [experiment_id], condition, order_by=["start_time ASC"])
        return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))

    def _search_versions(self, name: str, condition: str = "") -> list[Any]:
        """Return the model's versions that meet the condition, oldest first."""
        own = f"name = '{check_filter_value(name)}'"
        versions = all_pages(self.client.search_model_versions, f"{own} and {condition}" if condition else own)
        return sorted(versions, key=lambda version: int(version.version))

    def _logged_model(self, run_id: str) -> tuple[str, str]:
        """Return URI and id of the newest finished model that the run logged with the name `model`."""
        outputs = self.client.get_run(run_id).outputs
        for output in reversed(outputs.model_outputs if outputs else []):
            logged = self.client.get_logged_model(output.model_id)
            if logged.name == MODEL_ARTIFACT and logged.status == "READY":
                return f"models:/{logged.model_id}", logged.model_id
        raise NotFound(
            f"run {run_id} logged no model named {MODEL_ARTIFACT!r}; its training must log one before it ends"
        )

    def _download(self, to: Path, **source: str) -> Path:
        """Download artifacts, given as by `mlflow.artifacts.download_artifacts`, and return their path below `to`."""
        from mlflow.artifacts import download_artifacts

        return Path(download_artifacts(**source, dst_path=str(to), tracking_uri=self.tracking_uri))

    def _download_model(self, source: str, model: Path) -> None:
        with tempfile.TemporaryDirectory(dir=model.parent, prefix=".fetch-") as temporary:
            downloaded = self._download(Path(temporary), artifact_uri=source)
            if not (downloaded / "MLmodel").is_file():
                raise Corrupt(f"{source} is not an MLflow model: {sorted(p.name for p in downloaded.iterdir())}")
            try:
                downloaded.rename(model)
            except OSError:
                if not model.is_dir():  # otherwise another download of the same version was first
                    raise

    def _fetch_signature(self, name: str, version: str, folder: Path) -> None:
        """Download the version's signature to `folder`/model.sig, if its run has one."""
        run_id = self.client.get_model_version(name, version).run_id
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
            fetched = self.fetch_files(run_id, SIGNATURE_FOLDER, Path(temporary)) / f"{MODEL_ARTIFACT}.sig"
            if fetched.exists():
                fetched.replace(folder / fetched.name)

    def _run(self, run: Any, experiment: str = "") -> TrackingRun:
        page = f"{self.ui_url or self.tracking_uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
        name = experiment or self.client.get_experiment(run.info.experiment_id).name
        ended = None if run.info.status == "RUNNING" else run.info.end_time  # MLflow keeps the end of a reopened run
        started, ended = (time_from_ms(each) if each else None for each in (run.info.start_time, ended))
        data, tags = run.data, dict(run.data.tags)
        return TrackingRun(
            run.info.run_id, name, run.info.status, page, data.params, data.metrics, tags, started, ended
        )

    def _version(self, listed: Any) -> ModelVersion:
        version = self.client.get_model_version(listed.name, listed.version)  # a search does not return aliases
        page = f"{self.ui_url or self.tracking_uri}/#/models/{version.name}/versions/{version.version}"
        aliases = tuple(sorted(version.aliases))
        return ModelVersion(version.name, str(version.version), version.run_id, page, dict(version.tags), aliases)

"""The tracking port: runs with their data and artifacts, and the registry of model versions."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from prefect.blocks.core import Block

from blocks.common.collectable import ArtifactOwner
from blocks.records.tracking import ModelVersion, TrackingRun

CHAMPION_ALIAS = "champion"
"""Alias of the deployed version."""
KEY_TAG = "ratchet.key"
"""Tag of runs and versions that Ratchet created: their idempotency key. Anything without it is not ours."""
KEEP_TAG = "ratchet.keep"
"""Tag with which a person keeps a run or version permanently."""
EVIDENCE_TAG = "ratchet.evidence"
"""The tag of a version whose evidence pack is stored: the digest of the pack's signature."""
PROMOTED_TAG = "ratchet.promoted"
"""Tag of a version that was deployed once: the environment."""

PredictFunction: TypeAlias = Callable[[pd.DataFrame], np.ndarray]
"""A loaded model: maps rows to predictions."""


class Tracking(ArtifactOwner, Block):
    """Runs and model versions. Opening a run or registering a version with an existing key returns the existing one."""

    @abstractmethod
    def open_run(
        self,
        experiment: str,
        *,
        key: str,
        name: str,
        tags: Mapping[str, str] | None = None,
        parent: str | None = None,
    ) -> TrackingRun:
        """Return the run with `key`, set to running again, or start one (as a child of run id `parent`)."""

    @abstractmethod
    def job_environment(self, run_id: str) -> Mapping[str, str]:
        """Return the variables with which a training program joins the run (`MLFLOW_TRACKING_URI`, `MLFLOW_RUN_ID`)."""

    @abstractmethod
    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add to a run. Metrics that are not finite are rejected, since a store may turn them into numbers.

        Raises:
            Rejected: a metric is NaN or infinite, or a parameter is logged again with another value.
        """

    @abstractmethod
    def log_dataset(self, run_id: str, *, name: str, digest: str, source: str, rows: int, context: str) -> None:
        """Record a data set that the run used: name, digest, source, rows, and purpose ("training")."""

    @abstractmethod
    def log_files(self, run_id: str, folder: Path, artifact_folder: str = "") -> None:
        """Store all files below `folder` with the run, in the artifact folder `artifact_folder`."""

    @abstractmethod
    def fetch_files(self, run_id: str, under: str, folder: Path) -> Path:
        """Download the run's files in the artifact folder `under` to `folder`/`under`, and return that path.

        The folder is empty if the run has no such files.
        """

    @abstractmethod
    def close_run(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """End a run."""

    @abstractmethod
    def run(self, run_id: str) -> TrackingRun:
        """Return a run. Raises NotFound."""

    @abstractmethod
    def children(self, run_id: str) -> tuple[TrackingRun, ...]:
        """Return the runs opened with this one as parent, oldest first."""

    @abstractmethod
    def runs(self, experiment: str, since: datetime | None = None) -> tuple[TrackingRun, ...]:
        """Return the experiment's runs started at `since` or later, oldest first; none if it does not exist."""

    @abstractmethod
    def experiments(self) -> tuple[str, ...]:
        """Return the names of all experiments, sorted, including those of other programs."""

    @abstractmethod
    def register(self, name: str, run_id: str, *, key: str, tags: Mapping[str, str]) -> ModelVersion:
        """Register the model that the run logged with the artifact name `model`; the same key registers once.

        Raises:
            NotFound: the run logged no model.
        """

    @abstractmethod
    def version(self, name: str, reference: str) -> ModelVersion | None:
        """Return the version by number ("3") or alias ("@champion"), or None."""

    @abstractmethod
    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """Return all registered versions, oldest first; none if there is no such model."""

    @abstractmethod
    def tag_version(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Add or replace tags of a version."""

    @abstractmethod
    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Set the alias to the version; an alias names one version at a time."""

    @abstractmethod
    def fetch_model(self, name: str, version: str, folder: Path) -> Path:
        """Download the version's artifact (an MLflow model folder) to `folder`/model and return that path.

        The signature, if the run has the file `signature/model.sig`, is downloaded to `folder`/model.sig.
        """

    def warm_up(self) -> None:
        """Start the prediction process early to save time; it has no other effect."""

    @abstractmethod
    def load_model(self, artifact: Path) -> PredictFunction:
        """Load a downloaded artifact once, for any number of frames; needs no server.

        Loading a model runs code. So an adapter loads real models only if the signature beside the artifact is of a
        trusted key and the model contains only allowed types, and in a process without credentials.

        Returns:
            A function that returns the predictions for the rows of a frame, in order: an array of shape (rows,)
            for regression, (rows, classes) of probabilities for classification. It raises Rejected if the model does
            not accept the columns; the message names them.

        Raises:
            Rejected: the model may not be loaded, or does not load.
        """

    def model_classes(self, artifact: Path) -> tuple[str, ...] | None:
        """Return the labels in the order of the model's probabilities, by its `classes_`; None if it has none.

        It loads the model like `load_model`, and raises the same errors.
        """
        return None

    def predict(self, artifact: Path, frame: pd.DataFrame) -> np.ndarray:
        """Load a downloaded artifact and return its predictions for one frame; see `load_model`."""
        return self.load_model(artifact)(frame)

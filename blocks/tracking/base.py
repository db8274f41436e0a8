"""The tracking port: runs, what they saw and made, and the registry of model versions."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from prefect.blocks.core import Block

from blocks.common.collectable import ArtifactOwner

CHAMPION_ALIAS = "champion"
"""The alias of the version that serves."""
KEY_TAG = "ratchet.key"
"""The tag of what was made here: the key under which it is found again. What has none is not ours."""
KEEP_TAG = "ratchet.keep"
"""The tag by which a person keeps a run or version for ever."""
PROMOTED_TAG = "ratchet.promoted"
"""The tag of a version that served once: in which environment."""

PredictFunction: TypeAlias = Callable[[pd.DataFrame], np.ndarray]
"""A loaded model: rows in, predictions out."""


@dataclass(frozen=True)
class TrackingRun:
    """One tracked run. `url` is a page for people. Metrics hold the last value of each.

    `started` and `ended` are None where the store does not say, `ended` as long as it runs.
    """

    id: str
    experiment: str
    status: str
    url: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    started: datetime | None = None
    ended: datetime | None = None


@dataclass(frozen=True)
class ModelVersion:
    """A registered model version: its number as text, the run that made it, and a page for people."""

    name: str
    version: str
    run_id: str
    url: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...]


class Tracking(ArtifactOwner, Block):
    """Runs and model versions. What is opened or registered under a key that is known is found, not made again."""

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
        """Return the run that bears `key`, set to running again, or start one (a child of run id `parent`)."""

    @abstractmethod
    def job_environment(self, run_id: str) -> Mapping[str, str]:
        """Return the variables by which a training program joins the run (`MLFLOW_TRACKING_URI`, `MLFLOW_RUN_ID`)."""

    @abstractmethod
    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add to a run. Metrics that are not finite are refused, since a store may turn them into numbers.

        Raises:
            Rejected: a metric is NaN or infinite, or a parameter is logged again with another value.
        """

    @abstractmethod
    def log_dataset(self, run_id: str, *, name: str, digest: str, source: str, rows: int, context: str) -> None:
        """Say which data the run saw: name, digest, where it is from, rows, and for what ("training")."""

    @abstractmethod
    def log_files(self, run_id: str, folder: Path, artifact_folder: str = "") -> None:
        """Keep all files below `folder` with the run, below the artifact folder `artifact_folder`."""

    @abstractmethod
    def fetch_files(self, run_id: str, under: str, folder: Path) -> Path:
        """Copy what the run keeps below the artifact folder `under` to `folder`/`under`, and return that path.

        It is empty when the run keeps nothing there.
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
        """Return the experiment's runs that were started at `since` or later, oldest first; none if it is not there."""

    @abstractmethod
    def experiments(self) -> tuple[str, ...]:
        """Return the names of all experiments, sorted: of every model that was ever trained, and others' as well."""

    @abstractmethod
    def register(self, name: str, run_id: str, *, key: str, tags: Mapping[str, str]) -> ModelVersion:
        """Register the model that the run logged under the artifact name `model`; the same key registers once.

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
        """Point the alias at the version; an alias points at one version at a time."""

    @abstractmethod
    def fetch_model(self, name: str, version: str, folder: Path) -> Path:
        """Copy the version's whole artifact (an MLflow model folder) to `folder`/model and return that path.

        Its signature, where its run has the file `signature/model.sig`, comes to `folder`/model.sig.
        """

    def warm_up(self) -> None:
        """Get ready to predict, beside a wait; what it does shows in nothing but time."""

    @abstractmethod
    def load_model(self, artifact: Path) -> PredictFunction:
        """Load a fetched artifact once, for as many frames as come; needs no server.

        Loading a model runs code: an adapter that loads real ones does so only where the signature beside the artifact
        is of a pinned key, the model is of nothing but what is allowed, and in a process without credentials.

        Returns:
            A function that returns the predictions for the rows of a frame, in order: an array of shape (rows,)
            for regression, (rows, classes) of probabilities for classification. It raises Rejected when the
            model refuses the columns that it is given; the message names them.

        Raises:
            Rejected: the model may not be loaded, or does not load.
        """

    def predict(self, artifact: Path, frame: pd.DataFrame) -> np.ndarray:
        """Load a fetched artifact and return its predictions for one frame; see `loaded`."""
        return self.load_model(artifact)(frame)

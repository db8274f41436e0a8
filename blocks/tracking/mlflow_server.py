"""A connection to MLflow: its client, its errors as port errors, and its collectable artifacts.

An MLflow client deletes files, and only marks runs and logged models as deleted; `mlflow gc`, run with access to the
database, deletes the marked rows.
"""

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel, Field, PrivateAttr

from blocks.common.errors import NotFound, PortError, Rejected, Unavailable
from blocks.records.collectable import Collectable
from blocks.tracking.base import KEEP_TAG, KEY_TAG
from blocks.tracking.checks import check_filter_value

MAX_RUN_TIME = timedelta(days=8)
"""A run that started longer ago and never ended counts as dead: a training may take seven days."""
REJECTED_CODES = {
    "INVALID_PARAMETER_VALUE", "BAD_REQUEST", "PERMISSION_DENIED", "UNAUTHENTICATED", "INVALID_STATE",
    "RESOURCE_ALREADY_EXISTS", "FEATURE_DISABLED",
}  # fmt: skip


class MlflowServer(BaseModel):
    """MLflow at a URI, and the artifacts that it stores."""

    tracking_uri: str = Field(description="Where MLflow is: http(s)://…, sqlite:///… or a SageMaker ARN.")
    retries: int = Field(default=3, ge=0, description="Number of repeats of a request that gets no response.")

    _client: Any = PrivateAttr(default=None)

    @property
    def client(self) -> Any:
        """MLflow's client for `tracking_uri`, created on first use."""
        if self._client is None:
            self._configure_mlflow()
            from mlflow import MlflowClient

            self._client = MlflowClient(self.tracking_uri)
        return self._client

    def collectables(self, models: Sequence[str]) -> tuple[Collectable, ...]:
        """Return the runs, logged models and versions of these models; see `ArtifactOwner.collectables`."""
        with self._port_errors(f"MLflow's artifacts of {', '.join(models)}"):
            return tuple(artifact for name in models for artifact in self._artifacts_of(name))

    def size_bytes(self, key: str) -> int:
        """Return the bytes of the artifacts of a run or logged model; a version is a row and has none."""
        kind, _, name = key.partition(":")
        try:
            with self._port_errors(f"MLflow's {key}"):
                listings = {"run": self.client.list_artifacts, "model": self.client.list_logged_model_artifacts}
                return _artifact_bytes(listings[kind], name, None) if kind in listings else 0
        except NotFound:
            return 0

    def delete_collectables(self, key: str) -> None:
        """Delete the artifact; see `ArtifactOwner.delete_collectables`."""
        kind, _, name = key.partition(":")
        with contextlib.suppress(NotFound), self._port_errors(f"MLflow's {key}"):
            if kind == "run":
                run = self.client.get_run(name)
                if run.info.lifecycle_stage == "active":
                    self._delete_files(run.info.artifact_uri)
                    self.client.delete_run(name)
            elif kind == "model":
                self._delete_files(self.client.get_logged_model(name).artifact_location)
                self.client.delete_logged_model(name)
            elif kind == "version":
                model, _, number = name.rpartition("/")
                self.client.delete_model_version(model, number)
            else:
                raise Rejected(f"MLflow has no {key!r}; it was not deleted")

    def _artifacts_of(self, name: str) -> Iterator[Collectable]:
        """Yield the artifacts of the experiment and of the registered model of this name."""
        condition = f"name = '{check_filter_value(name)}'"
        experiment = self.client.get_experiment_by_name(name)
        if experiment is not None:
            yield from self._runs_and_models(experiment.experiment_id)
        for version in all_pages(self.client.search_model_versions, condition):
            model_id = version.model_id or version.source.removeprefix("models:/")  # not in search results
            own = f"{name}/{version.version}"
            needs = (f"run:{version.run_id}", f"model:{model_id}", f"fetched-model:{own}")
            used = max(version.last_updated_timestamp or 0, version.creation_timestamp)
            yield Collectable(f"version:{own}", f"version {own}", time_from_ms(used), needs)

    def _runs_and_models(self, experiment_id: str) -> Iterator[Collectable]:
        models: dict[str, list[str]] = {}
        for model in all_pages(self.client.search_logged_models, [experiment_id]):
            key, reason = f"model:{model.model_id}", self._foreign_reason(model.source_run_id)
            models.setdefault(str(model.source_run_id), []).append(key)
            used = time_from_ms(model.last_updated_timestamp or model.creation_timestamp)
            yield Collectable(key, f"model {model.model_id}", used, keep_reason=reason)
        for run in all_pages(self.client.search_runs, [experiment_id]):
            parent = run.data.tags.get("mlflow.parentRunId")
            needs = (*models.get(run.info.run_id, ()), *([f"run:{parent}"] if parent else []))
            used = time_from_ms(run.info.end_time or run.info.start_time)
            yield Collectable(f"run:{run.info.run_id}", f"run {run.info.run_name}", used, needs, _retention_reason(run))

    def _foreign_reason(self, run_id: str | None) -> str:
        """Return why a logged model must not be deleted: none of our runs created it; "" otherwise."""
        ours = bool(run_id) and KEY_TAG in self.client.get_run(run_id).data.tags
        return "" if ours else "it was not made by Ratchet"

    def _delete_files(self, uri: str) -> None:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        get_artifact_repository(uri, tracking_uri=self.tracking_uri).delete_artifacts()

    def _configure_mlflow(self) -> None:
        """Set options that MLflow reads only from the environment, and silence a plugin that warns on each request."""
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = str(self.retries)
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        logging.getLogger("mlflow.tracking.request_header.registry").setLevel(logging.CRITICAL)
        logging.getLogger("mlflow.store.model_registry.abstract_store").setLevel(logging.WARNING)

    @contextlib.contextmanager
    def _port_errors(self, resource: str) -> Iterator[None]:
        """Translate MLflow's errors into port errors that name the resource and the URI."""
        self._configure_mlflow()
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        try:
            yield
        except (MlflowException, RequestException) as cause:
            code = cause.error_code if isinstance(cause, MlflowException) else ""
            raise _error_type(code, str(cause))(f"{resource} at {self.tracking_uri}: {str(cause)[:500]}") from cause


@contextlib.contextmanager
def ignored_if_exists() -> Iterator[None]:
    """Ignore MLflow's error that a resource exists already."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as cause:
        if cause.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def all_pages(search: Callable[..., Any], *arguments: Any, **named: Any) -> Iterator[Any]:
    """Yield the results of all pages of a search by MLflow's client."""
    token: str | None = None
    while True:
        page = search(*arguments, **named, page_token=token)
        yield from page
        if not (token := page.token):
            return


def time_from_ms(milliseconds: int) -> datetime:
    """Convert MLflow's milliseconds since 1970."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _error_type(code: str, text: str) -> type[PortError]:
    """Return the port error type for MLflow's error code; "" is no response."""
    if code == "RESOURCE_DOES_NOT_EXIST" or re.search(r"alias \S+ not found", text):
        return NotFound
    return Rejected if code in REJECTED_CODES else Unavailable


def _retention_reason(run: Any) -> str:
    if KEEP_TAG in run.data.tags:
        return f"a person tagged it {KEEP_TAG}"
    if KEY_TAG not in run.data.tags:
        return "it was not made by Ratchet"
    age = datetime.now(UTC) - time_from_ms(run.info.start_time)
    return "it is running" if run.info.status not in {"FINISHED", "FAILED", "KILLED"} and age < MAX_RUN_TIME else ""


def _artifact_bytes(listing: Any, name: str, path: str | None) -> int:
    return sum(
        _artifact_bytes(listing, name, file.path) if file.is_dir else file.file_size or 0
        for file in listing(name, path)
    )

"""MLflow's collectable artifacts. Files are deleted; runs and logged models are only marked as deleted.

An MLflow client cannot do more; `mlflow gc`, run with access to the database, deletes the marked rows.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from blocks.common.errors import Rejected
from blocks.records.collectable import Collectable
from blocks.tracking.base import KEEP_TAG, KEY_TAG

MAX_RUN_TIME = timedelta(days=8)
"""A run that started longer ago and never ended counts as dead: a training may take seven days."""


class MlflowArtifacts:
    """Collectable artifacts of an MLflow server; `client` is its client. Raises MLflow's errors."""

    def __init__(self, client: Any, tracking_uri: str) -> None:
        self.client, self.tracking_uri = client, tracking_uri

    def collectables(self, names: Sequence[str]) -> Iterator[Collectable]:
        """Yield the runs, logged models and versions of the experiments and models of these names."""
        for name in names:
            experiment = self.client.get_experiment_by_name(name)
            if experiment is not None:
                yield from self._of_experiment(experiment.experiment_id)
            for version in self.versions(name):
                model_id = version.model_id or version.source.removeprefix("models:/")  # not in search results
                own = f"{name}/{version.version}"
                needs = (f"run:{version.run_id}", f"model:{model_id}", f"fetched-model:{own}")
                used = max(version.last_updated_timestamp or 0, version.creation_timestamp)
                yield Collectable(f"version:{own}", f"version {own}", time_from_ms(used), needs)

    def versions(self, name: str) -> list[Any]:
        """Return all registered versions of a model."""
        return list(_pages(lambda token: self.client.search_model_versions(f"name = '{name}'", page_token=token)))

    def size_bytes(self, key: str) -> int:
        """Return the bytes of the artifacts of a run or logged model; a version is a row and has none."""
        kind, _, name = key.partition(":")
        listings = {"run": self.client.list_artifacts, "model": self.client.list_logged_model_artifacts}
        return _artifact_bytes(listings[kind], name, None) if kind in listings else 0

    def delete_collectables(self, key: str) -> None:
        """Delete the artifact of a key. MLflow raises an error for a missing logged model or version."""
        kind, _, name = key.partition(":")
        if kind == "run":
            run = self.client.get_run(name)
            if run.info.lifecycle_stage == "active":
                self._delete_artifacts(run.info.artifact_uri)
                self.client.delete_run(name)
        elif kind == "model":
            self._delete_artifacts(self.client.get_logged_model(name).artifact_location)
            self.client.delete_logged_model(name)
        elif kind == "version":
            model, _, number = name.rpartition("/")
            self.client.delete_model_version(model, number)
        else:
            raise Rejected(f"MLflow has no {key!r}; it was not deleted")

    def _of_experiment(self, experiment_id: str) -> Iterator[Collectable]:
        models: dict[str, list[str]] = {}
        for model in self._models(experiment_id):
            models.setdefault(str(model.source_run_id), []).append(f"model:{model.model_id}")
            used = time_from_ms(model.last_updated_timestamp or model.creation_timestamp)
            yield Collectable(
                f"model:{model.model_id}",
                f"model {model.model_id}",
                used,
                (),
                self._foreign_reason(model.source_run_id),
            )
        for run in _pages(lambda token: self.client.search_runs([experiment_id], page_token=token)):
            parent = run.data.tags.get("mlflow.parentRunId")
            needs = (*models.get(run.info.run_id, ()), *([f"run:{parent}"] if parent else []))
            used = time_from_ms(run.info.end_time or run.info.start_time)
            yield Collectable(f"run:{run.info.run_id}", f"run {run.info.run_name}", used, needs, _retention_reason(run))

    def _models(self, experiment_id: str) -> Iterator[Any]:
        return _pages(lambda token: self.client.search_logged_models([experiment_id], page_token=token))

    def _foreign_reason(self, run_id: str | None) -> str:
        """Return why a logged model must not be deleted: none of our runs created it; "" otherwise."""
        ours = bool(run_id) and KEY_TAG in self.client.get_run(run_id).data.tags
        return "" if ours else "it was not made by Ratchet"

    def _delete_artifacts(self, uri: str) -> None:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        get_artifact_repository(uri, tracking_uri=self.tracking_uri).delete_artifacts()


def _retention_reason(run: Any) -> str:
    if KEEP_TAG in run.data.tags:
        return f"a person tagged it {KEEP_TAG}"
    if KEY_TAG not in run.data.tags:
        return "it was not made by Ratchet"
    age = datetime.now(UTC) - time_from_ms(run.info.start_time)
    return "it is running" if run.info.status not in {"FINISHED", "FAILED", "KILLED"} and age < MAX_RUN_TIME else ""


def time_from_ms(milliseconds: int) -> datetime:
    """Convert MLflow's milliseconds since 1970."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _pages(page: Any) -> Iterator[Any]:
    token: str | None = None
    while True:
        current = page(token)
        yield from current
        if not (token := current.token):
            return


def _artifact_bytes(listing: Any, name: str, path: str | None) -> int:
    return sum(
        _artifact_bytes(listing, name, file.path) if file.is_dir else file.file_size or 0
        for file in listing(name, path)
    )

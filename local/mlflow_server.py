"""The guard of the stack's MLflow server: no foreign pages, no assistant, no artifacts outside its own folder.

MLflow checks Host and Origin itself, but not enough: its list of hosts contains patterns like `10.*`, which a public
name can match, and its check of Origin leaves out paths, methods and every other port of this machine. Its assistant
runs shell commands for whoever reaches the port. And it reads, writes and deletes files in whatever folder a client
names as the place of an experiment's artifacts. MLflow starts uvicorn in a process of its own, so the guard is put
where uvicorn's options allow it: `mlflow server --uvicorn-opts` names the protocol below.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runtime.foreign_pages import ForeignPageGuard

_SWITCHED_OFF = ("/mlflow/assistant", "/mlflow/webhooks")
"""Routes that Ratchet does not use, and for which MLflow has no switch: one runs commands, one calls other servers."""


def without_unused_routes(app: ASGIApp) -> ASGIApp:
    """Return the application without the routes of MLflow's assistant and webhooks."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        hidden = any(part in scope.get("path", "") for part in _SWITCHED_OFF)
        await (PlainTextResponse("this part of MLflow is off\n", 404) if hidden else app)(scope, receive, send)

    return guarded


def confine_artifacts() -> None:
    """Make the MLflow of this process open no artifacts but those below `--artifacts-destination`.

    Every route opens artifacts by MLflow's table of repositories, so the check is put around its entries. New
    experiments keep to the server's place as well: the client of a worker would open another one as the worker's user.
    """
    from mlflow.server.constants import ARTIFACTS_DESTINATION_ENV_VAR
    from mlflow.store.artifact.artifact_repository_registry import get_registered_artifact_repositories
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    own = os.environ[ARTIFACTS_DESTINATION_ENV_VAR]
    repositories = get_registered_artifact_repositories()
    repositories.update({scheme: _confined(opener, own) for scheme, opener in repositories.items()})
    create = SqlAlchemyStore.create_experiment

    def create_experiment(store: Any, name: str, artifact_location: str | None = None, tags: Any = None) -> Any:
        if artifact_location and not _is_below(artifact_location, store.artifact_root_uri):
            raise _refused(artifact_location)
        return create(store, name, artifact_location, tags)

    SqlAlchemyStore.create_experiment = create_experiment


def _confined(opener: Callable[..., Any], own: str) -> Callable[..., Any]:
    def confined(artifact_uri: str, *arguments: Any, **more: Any) -> Any:
        if not _is_below(artifact_uri, own):
            raise _refused(artifact_uri)
        return opener(artifact_uri, *arguments, **more)

    return confined


def _is_below(uri: str, folder: str) -> bool:
    """Whether a URI is that of a folder or below it; local paths are read as MLflow does, and links are followed."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    one, other = urlsplit(uri), urlsplit(folder)
    if {one.scheme, other.scheme} <= {"", "file"}:
        path, own = (Path(local_file_uri_to_path(each)).resolve() for each in (uri, folder))
        return path.is_relative_to(own)
    climbs = ".." in unquote(uri).split("/")
    return one.netloc == other.netloc and not climbs and f"{uri}/".startswith(f"{folder.rstrip('/')}/")


def _refused(uri: str) -> Exception:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    problem = f"{uri!r} is not below the artifact folder of this server; create the experiment without a location"
    refusal: Exception = MlflowException(problem, INVALID_PARAMETER_VALUE)
    return refusal


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol; its WebSocket protocol uses the same application. `$RATCHET_MLFLOW_ADDRESSES` counts."""

    def __init__(self, config: Config, *arguments: Any, **more: Any) -> None:
        if not isinstance(config.loaded_app, ForeignPageGuard):  # the first connection of the process
            confine_artifacts()
            addresses = os.environ.get("RATCHET_MLFLOW_ADDRESSES", "").split()
            config.loaded_app = ForeignPageGuard(without_unused_routes(config.loaded_app), addresses)
        super().__init__(config, *arguments, **more)

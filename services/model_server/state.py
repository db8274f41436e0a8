"""Persistent state of the model server: read at start, written atomically before each switch."""

import fcntl
import json
from datetime import datetime
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from runtime.files import write_text_atomically

_FILE = "endpoints.json"


class GoldenRequest(BaseModel):
    """A request with known predictions, as in `blocks.endpoints.base.GoldenExample`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request: str = Field(description="JSON as posted to /invocations")
    expected_predictions: str = Field(description="the expected predictions, as JSON text")
    tolerance: float = Field(1e-9, ge=0, allow_inf_nan=False, description="maximum difference between numbers")


class LogRules(BaseModel):
    """What the inference log stores of a request, as in `blocks.endpoints.base.InferenceLogPolicy`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    entity_column: str = Field("", description="the column that names who a row is about; callers may send it")
    excluded_columns: tuple[str, ...] = Field((), description="columns that are not written")
    hashed_columns: tuple[str, ...] = Field((), description="columns of which only a keyed hash is written")


class ReleaseRequest(BaseModel):
    """A model version to be served."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="the model version")
    artifact: Path = Field(description="the MLflow model folder, inside the server's state folder")
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the folder")
    golden: GoldenRequest
    log: LogRules | None = Field(None, description="what to log of requests and responses; default: nothing")


class ReleasedVersion(ReleaseRequest):
    """A version that is or was live, and since when."""

    since: datetime


class EndpointState(BaseModel):
    """One endpoint: the live version, and the version that was live before it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    live: ReleasedVersion
    standby: ReleasedVersion | None = None


_STATES = TypeAdapter(dict[str, EndpointState])


class StateInUse(Exception):
    """Another model server uses the folder."""


def lock_state(folder: Path) -> IO[str]:
    """Lock the state folder for this process; closing the returned file releases the lock.

    Raises:
        StateInUse: another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = (folder / "host.lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as cause:
        lock.close()
        raise StateInUse(f"another model server uses {folder}; stop it first, or choose another --state") from cause
    return lock


def read_state(folder: Path) -> dict[str, EndpointState]:
    """Return the endpoints by name; empty for a new server.

    Raises:
        ValueError: the file exists but cannot be read; the server must not start as if it were new.
    """
    path = folder / _FILE
    if not path.exists():
        return {}
    return _STATES.validate_json(path.read_bytes())


def write_state(folder: Path, lines: dict[str, EndpointState]) -> None:
    """Replace the state file atomically."""
    write_text_atomically(folder / _FILE, json.dumps(_STATES.dump_python(lines, mode="json"), indent=2, sort_keys=True))

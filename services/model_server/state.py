"""What the host serves, on disk: read when it starts, written before each switch, never half written."""

import fcntl
import json
from datetime import datetime
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from runtime.files import write_text_atomically

_FILE = "endpoints.json"


class GoldenRequest(BaseModel):
    """A request whose answer is known, as in `blocks.endpoints.base.GoldenExample`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request: str = Field(description="JSON as posted to /invocations")
    expected_predictions: str = Field(description="the predictions it must give, as JSON text")
    tolerance: float = Field(1e-9, ge=0, allow_inf_nan=False, description="by how much numbers may differ")


class LogRules(BaseModel):
    """What the inference log may keep of a request, as in `blocks.endpoints.base.InferenceLogPolicy`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str = Field("", description="the column that names who a row is about; callers may send it")
    leave_out: tuple[str, ...] = Field((), description="columns that are not written")
    hashed: tuple[str, ...] = Field((), description="columns of which only a keyed hash is written")


class ReleaseRequest(BaseModel):
    """A model version that is to be served."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="the model version")
    artifact: Path = Field(description="the MLflow model folder; below the host's state folder")
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the folder")
    golden: GoldenRequest
    log: LogRules | None = Field(None, description="what to keep of requests and answers; nothing when left out")


class ReleasedVersion(ReleaseRequest):
    """A version that serves, or served before this one, and since when."""

    since: datetime


class EndpointState(BaseModel):
    """One endpoint: what is live, and what was live before it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    live: ReleasedVersion
    standby: ReleasedVersion | None = None


_STATES = TypeAdapter(dict[str, EndpointState])


class StateInUse(Exception):
    """Another host works on the folder."""


def lock_state(folder: Path) -> IO[str]:
    """Take the state folder for this process alone; it is given back when the returned file is closed.

    Raises:
        StateInUse: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = (folder / "host.lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as cause:
        lock.close()
        raise StateInUse(f"another host serves from {folder}; stop it first, or choose another --state") from cause
    return lock


def read_state(folder: Path) -> dict[str, EndpointState]:
    """Return the endpoints by name; none when the host is new.

    Raises:
        ValueError: the file is there but cannot be read; the host must not start as if it were new.
    """
    path = folder / _FILE
    if not path.exists():
        return {}
    return _STATES.validate_json(path.read_bytes())


def write_state(folder: Path, lines: dict[str, EndpointState]) -> None:
    """Replace the file as a whole."""
    write_text_atomically(folder / _FILE, json.dumps(_STATES.dump_python(lines, mode="json"), indent=2, sort_keys=True))

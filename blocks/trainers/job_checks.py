"""Checks shared by all trainers: a job is valid, and a job of the same name has the same content."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from blocks.common.errors import Conflict, NotFound, Rejected
from blocks.common.jobs import NAME_PATTERN
from blocks.common.plain_files import read_folder
from blocks.trainers.base import TrainingJob
from runtime.digests import bytes_digest, text_digest

CHANNEL_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PROGRAM_CHANNEL = "code"
"""The channel with the training program."""


def checked_program(job: TrainingJob) -> dict[str, bytes]:
    """Check that a job can run, and return the files of its program by name, as they are now.

    Raises:
        Rejected: SageMaker does not allow the job's name or a channel's, a hyperparameter is not text, a limit is not
            positive, or the program's folder holds something else than files (`blocks.common.plain_files`).
        NotFound: `program_folder` has no `train.py`, or a channel's folder does not exist.
    """
    if not NAME_PATTERN.fullmatch(job.name):
        raise Rejected(f"job name {job.name!r} must be 1 to 63 letters, digits and inner hyphens")
    for name, folder in job.channels.items():
        if not CHANNEL_PATTERN.fullmatch(name) or name == PROGRAM_CHANNEL:
            raise Rejected(f"job {job.name}: channel {name!r} must match {CHANNEL_PATTERN.pattern}, and not be 'code'")
        if not folder.is_dir():
            raise NotFound(f"job {job.name}: channel {name!r} is {folder}, which is not a folder")
    for key, value in job.hyperparameters.items():
        if not isinstance(value, str):
            raise Rejected(f"job {job.name}: hyperparameter {key!r} is {value!r}; give it as text")
    if job.max_seconds <= 0 or (job.max_memory_mb is not None and job.max_memory_mb <= 0):
        raise Rejected(f"job {job.name}: limits {job.max_seconds} s, {job.max_memory_mb} MB must be positive")
    program = read_folder(job.program_folder)
    if "train.py" not in program:
        raise NotFound(f"job {job.name}: no train.py in {job.program_folder}")
    return program


def content_digests(job: TrainingJob, program: Mapping[str, bytes]) -> dict[str, str]:
    """Return a digest of each part that identifies the job. No secret can be read from a digest.

    Of a channel the path and the files' names and sizes count, since hashing its rows would take too long. Limits and
    the variables `MLFLOW_*` and `RATCHET_*` do not count, since they do not change the model.
    """
    files = {name: bytes_digest(content) for name, content in program.items()}
    parts = {"program": _digest(files), "hyperparameters": _digest(job.hyperparameters)}
    parts |= {f"channel {name}": _digest(_listing(folder)) for name, folder in job.channels.items()}
    relevant = {key: value for key, value in job.environment.items() if not key.startswith(("MLFLOW_", "RATCHET_"))}
    return parts | {f"variable {key}": _digest({key: value}) for key, value in relevant.items()}


def check_same_content(name: str, existing: Mapping[str, str], requested: Mapping[str, str]) -> None:
    """Raise Conflict, with the names of the parts that differ, unless both jobs have the same content."""
    different = [key for key in sorted({*existing, *requested}) if existing.get(key) != requested.get(key)]
    if different:
        raise Conflict(f"job {name} exists with other content: {', '.join(different)}; give it another name")


def write_program(program: Mapping[str, bytes], folder: Path) -> None:
    """Write the files of a program below a folder."""
    for name, content in program.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _listing(folder: Path) -> dict[str, str]:
    files = {p.relative_to(folder).as_posix(): str(p.stat().st_size) for p in folder.rglob("*") if p.is_file()}
    return {**files, "": str(folder.resolve())}


def _digest(parts: Mapping[str, str]) -> str:
    return text_digest(json.dumps(dict(parts), sort_keys=True))

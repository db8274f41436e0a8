"""The settings of an environment as a TOML file, and the trust file: the settings that this machine trusts.

A process takes the settings of its environment from the trust file. Prefect's blocks only show them: whoever may write
to Prefect's API can change a block, so a block decides nothing (`blocks.environment`).
"""

import os
import re
import stat
import string
import tomllib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from blocks.common.errors import NotFound, Rejected

if TYPE_CHECKING:
    from prefect.blocks.core import Block

REQUIRED_PORTS = ("lake", "engine", "trainer", "endpoint", "tracking", "ledger")
OPTIONAL_PORTS = ("small_trainer", "batch_inference", "cloud_cleanup")
"""Ports that an environment may leave out."""
TASK_RUNNERS = ("thread", "dask")
MACHINE_FOLDER = Path("/etc/ratchet/trust")
"""Folder of trust files that no variable can move: on a machine that has it, `TRUST_VARIABLE` says nothing."""
TRUST_VARIABLE = "RATCHET_TRUST"
"""Variable with the folder of trust files of a machine without `MACHINE_FOLDER`."""
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class MissingVariable(Rejected):
    """A variable that an environment's file needs is not set."""


class NoTrustFile(NotFound):
    """This machine has no trust file of the environment."""


def trust_file(name: str, folder: Path | None = None, machine_folder: Path = MACHINE_FOLDER) -> Path:
    """Return the trust file of an environment.

    Args:
        name: the environment's name.
        folder: the folder of trust files on a machine without `machine_folder`; None: the one of `TRUST_VARIABLE`.
        machine_folder: the only folder that counts on a machine that has it.

    Raises:
        NoTrustFile: there is none; the message says where it was looked for, and how to write it.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise NoTrustFile(f"{name!r} is not the name of an environment")
    if os.path.lexists(machine_folder):
        folder = machine_folder
    elif folder is None:
        folder = Path(os.environ.get(TRUST_VARIABLE) or machine_folder)
    path = folder / f"{name}.toml"
    if os.path.lexists(path):
        return path
    raise NoTrustFile(
        f"this machine has no trust file of the environment {name!r}: there is no {path}. "
        f"Write it: python -m ratchet trust write {name} (the embedded stack: make up)"
    )


def read_trusted_settings(
    name: str, folder: Path | None = None, machine_folder: Path = MACHINE_FOLDER
) -> dict[str, Any]:
    """Return the settings in an environment's trust file; see `trust_file`. No variable is filled in.

    Raises:
        NoTrustFile: there is no such file.
        Rejected: others may change the file, it cannot be read, or it is not valid.
    """
    path = trust_file(name, folder, machine_folder)
    try:
        _check_only_its_owner_writes(path)
    except OSError as cause:
        raise Rejected(f"the trust file {path} cannot be read: {cause}") from cause
    return read_settings(path)


def _check_only_its_owner_writes(path: Path) -> None:
    """Raise Rejected when someone beside root and this process's user may change the file or replace it."""
    real = path.resolve(strict=True)
    for place in dict.fromkeys((path.parent, real.parent, real)):
        found = place.stat()
        replaceable = place == real or not found.st_mode & stat.S_ISVTX  # sticky: only its owner removes a file
        if found.st_uid not in (0, os.geteuid()) or (found.st_mode & OTHERS_MAY_WRITE and replaceable):
            raise Rejected(
                f"{place} may be changed by others (user {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}), so "
                f"the trust file {path} is not read; make it root's or this user's, and: chmod go-w {place}"
            )
    if not real.is_file():
        raise Rejected(f"the trust file {path} is not a file")


def read_settings(path: Path, variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the settings in a TOML file, with each `${VARIABLE}` filled in, or as they stand without `variables`.

    Raises:
        MissingVariable: a variable is not set.
        Rejected: the file cannot be read, or a port is missing; the message names it.
    """
    try:
        settings = tomllib.loads(path.read_text())
        if variables is not None:
            settings = {key: _substitute_variables(value, variables) for key, value in settings.items()}
    except KeyError as cause:
        raise MissingVariable(f"{path.name} needs the variable {cause}, which is not set; `make up` sets it") from cause
    except (ValueError, OSError) as cause:
        raise Rejected(f"{path.name} cannot be read: {cause}") from cause
    _check_ports(path.name, settings)
    if not isinstance(settings.get("scratch"), str):
        raise Rejected(f'{path.name} has no scratch folder; write scratch = "/some/folder" at its top')
    if (runner := settings.get("task_runner", "thread")) not in TASK_RUNNERS:
        raise Rejected(f"{path.name} has task_runner = {runner!r}; known are: {', '.join(TASK_RUNNERS)}")
    if not isinstance(settings.get("task_runner_address", ""), str):
        raise Rejected(f'{path.name} has a task_runner_address that is not text; write "tcp://host:8786"')
    return settings


def _check_ports(file: str, settings: Mapping[str, Any]) -> None:
    missing = [port for port in REQUIRED_PORTS if not isinstance(settings.get(port), dict)]
    if missing:
        raise Rejected(f"{file} has no table for: {', '.join(missing)}; each port needs its own table")
    ports = configured_ports(settings)
    unnamed = [
        port for port in ports if not (isinstance(t := settings[port], dict) and isinstance(t.get("adapter"), str))
    ]
    if unnamed:
        raise Rejected(f'{file} has no adapter for: {", ".join(unnamed)}; write adapter = "blocks.…"')
    adapters = [settings[port]["adapter"] for port in ports]
    if repeated := sorted({adapter for adapter in adapters if adapters.count(adapter) > 1}):
        raise Rejected(
            f"{file} names {', '.join(repeated)} twice; Prefect saves one block per class and name, so keep one"
        )


def configured_ports(settings: Mapping[str, Any]) -> list[str]:
    """Return the ports that the settings have a table for."""
    return [*REQUIRED_PORTS, *(port for port in OPTIONAL_PORTS if port in settings)]


def _substitute_variables(value: Any, variables: Mapping[str, str]) -> Any:
    """Substitute the variables in every text of a setting, after parsing, so that no value is parsed as TOML."""
    if isinstance(value, dict):
        return {key: _substitute_variables(part, variables) for key, part in value.items()}
    if isinstance(value, list):
        return [_substitute_variables(part, variables) for part in value]
    return string.Template(value).substitute(variables) if isinstance(value, str) else value


def adapter_class(path: str) -> "type[Block]":
    """Return the adapter class with this dotted path ("blocks.lake.local.LocalLake").

    Raises:
        NotFound: the path is not below `blocks.`, or there is no such module or class.
    """
    module, _, name = path.rpartition(".")
    if not module.startswith("blocks."):
        raise NotFound(f"adapter {path!r} is not below 'blocks.'; adapters live there, one file each")
    try:
        return cast("type[Block]", getattr(import_module(module), name))
    except (ImportError, AttributeError) as cause:
        raise NotFound(f"there is no adapter {path!r}: {cause}") from cause

"""Where the sources of an environment may be: folders, S3 buckets, and hosts of databases. Nothing else is read.

Every kind of source asks here before it opens anything, also for the places that files, tables and catalogs name in
turn. A path is checked where its links lead.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from blocks.common.errors import Rejected

_MACHINE_FOLDERS = ("/dev", "/etc", "/proc", "/run", "/sys")
"""Folders of the operating system; they are read only if a root names one, or a folder in it."""

GUARDED_SCHEMES = ("postgresql", "sqlite")
"""The databases whose own means keep a query from changing anything."""


STATE_VARIABLE = "RATCHET_STATE"
"""Variable with the state folder of this machine: databases, keys and accounts of its servers."""

_PATH_SETTING = re.compile(r"(.*_)?(key|file|folder|root)")
_FILE_ADDRESS = re.compile(r"(?:sqlite(?:\+\w+)?:///|file:(?://(?:localhost)?)?)([^?#]+)")


def places_in(settings: object, name: str = "") -> Iterator[str]:
    """Yield the folders and files that settings name, at any depth: paths, `sqlite:` and `file:` addresses.

    A text counts if it is an absolute path, or if its setting's name says that it is one (`models_key`).
    """
    if isinstance(settings, BaseModel):
        settings = dict(settings)
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            yield from places_in(value, str(key))
    elif isinstance(settings, list | tuple | set | frozenset):
        for value in settings:
            yield from places_in(value)
    elif isinstance(settings, SecretStr):
        yield from places_in(settings.get_secret_value(), name)
    elif isinstance(settings, str | Path):
        address = _FILE_ADDRESS.match(text := str(settings))
        path = Path(unquote(address[1]) if address else text).expanduser()
        named = isinstance(settings, Path) or address or path.is_absolute() or _PATH_SETTING.fullmatch(name)
        if text and named and path != Path("/") and (address or "://" not in text):
            yield str(path.absolute())


class SourceSettings(BaseModel):
    """Places that sources may be in; the defaults allow none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    roots: tuple[str, ...] = Field(
        default=(), description="Folders of the worker's machine whose files may be read; `/`: every folder."
    )
    excluded: tuple[str, ...] = Field(
        default=(), description="Folders and files that may not be read; of these and the roots the deepest decides."
    )
    buckets: tuple[str, ...] = Field(
        default=(), description="S3 buckets, or prefixes (`bucket/prefix`), that may be read; `*`: every bucket."
    )
    hosts: tuple[str, ...] = Field(
        default=(), description="Hosts of databases and catalogs (`host` or `host:port`); `*`: every host."
    )
    schemes: tuple[str, ...] = Field(
        default=GUARDED_SCHEMES,
        description="Databases that may be queried, as SQLAlchemy names them. Only postgresql and sqlite have a guard "
        "of their own that keeps a query from changing anything.",
    )

    @field_validator("roots", "excluded")
    @classmethod
    def _absolute(cls, folders: tuple[str, ...]) -> tuple[str, ...]:
        for folder in folders:
            if not Path(folder).is_absolute():
                raise ValueError(f"{folder!r} is no absolute path")
        return folders

    def excluding(self, places: Iterable[Path | str]) -> "SourceSettings":
        """Return these settings without further folders and files."""
        return self.model_copy(update={"excluded": (*self.excluded, *map(str, places))})

    def check_path(self, path: Path, named: str) -> None:
        """Check one path; see `check_paths`."""
        self.check_paths([path], named)

    def check_paths(self, paths: Iterable[Path], named: str) -> None:
        """Check paths of this machine: where their links lead must be below a root, and in no hidden folder of it.

        `named` is the source, for the message. The message shows a link that leads outside, and not where to.

        Raises:
            Rejected: a path is outside.
        """
        allowed = {Path(os.path.realpath(root)) for root in self.roots}
        denied = {Path(os.path.realpath(folder)) for folder in self.excluded}
        denied |= {Path(folder) for folder in _MACHINE_FOLDERS} - allowed

        def root_of(real: Path) -> Path | None:
            around = next((place for place in (real, *real.parents) if place in allowed or place in denied), None)
            return None if around in denied else around

        for path in paths:
            real = Path(os.path.realpath(path))
            if (root := root_of(real)) is None:
                shown = Path(os.path.abspath(path))  # noqa: PTH100  (no link is followed)
                links = [place for place in reversed(shown.parents) if place.is_symlink()]
                shown = next((link for link in links if root_of(Path(os.path.realpath(link))) is None), shown)
                raise _refused(named, "the path", str(shown), "roots", f"Move it below one ({_listed(self.roots)})")
            if hidden := next((part for part in real.relative_to(root).parts if part.startswith(".")), ""):
                remedy = f"It is in the hidden {hidden!r}: move it"
                raise _refused(named, "the path", str(real), "roots", remedy)

    def check_object(self, bucket: str, key: str, named: str) -> None:
        """Check an object or a prefix in S3. Raises Rejected if it is in none of the buckets and prefixes."""
        inside = f"{bucket}/{key}"  # compared by letters, as S3 does: `b//in/x` is not below `b/in`
        for allowed in () if ".." in key.split("/") else self.buckets:
            if allowed == "*" or f"{inside}/".startswith(f"{allowed.rstrip('/')}/"):
                return
        raise _refused(
            named, "the place", f"s3://{bucket}/{key}", "buckets", f"Use one of them ({_listed(self.buckets)})"
        )

    def check_host(self, host: str, port: int | None, named: str) -> None:
        """Check the host of a database or a catalog. Raises Rejected if it is not listed."""
        name = host.lower().rstrip(".")
        if not {"*", name, f"{name}:{port}"} & {each.lower() for each in self.hosts}:
            shown = f"{name}:{port}" if port else name
            raise _refused(named, "the host", shown, "hosts", f"Use one of them ({_listed(self.hosts)})")

    def check_scheme(self, scheme: str, named: str) -> None:
        """Check the kind of a database. Raises Rejected if it is not listed."""
        if scheme not in self.schemes:
            raise _refused(named, "the database", scheme, "schemes", f"Use one of them ({_listed(self.schemes)})")


def _listed(allowed: Iterable[str]) -> str:
    return ", ".join(allowed) or "there are none"


def _refused(named: str, what: str, value: str, key: str, remedy: str) -> Rejected:
    return Rejected(
        f"{named}: {what} {value!r} is not among those that this environment reads. {remedy}, or let whoever runs the "
        f"environment add it to sources.{key} in its file (docs/ingest.md)."
    )

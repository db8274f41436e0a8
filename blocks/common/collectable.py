"""What an adapter keeps and could let go of: how `sweep` learns of it, measures it, and has it removed."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from blocks.common.errors import Rejected

DELETING_PREFIX = ".swept-"
"""How the name of a folder begins that is being removed."""


@dataclass(frozen=True)
class Collectable:
    """One thing that is kept.

    Attributes:
        key: its kind and name: `run:<id>`, `model:<id>`, `version:<model>/<number>`, `attempt:<job>/<number>`,
            `release:<endpoint>/<version>`, `tier:<model>/<digest>`, `fetched:<model>/<version>`, `result:<name>`,
            and in S3 `job:<attempt>`, `input:<digest>`, `transform:<job>`.
        description: what it is, for people.
        last_used: when it was last written or used, with a time zone.
        depends_on: the keys of what it cannot do without; what they name need not be there.
        keep_reason: why it must stay whatever else is known, such as "it is running"; "" when nothing holds it.
    """

    key: str
    description: str
    last_used: datetime
    depends_on: tuple[str, ...] = field(default=())
    keep_reason: str = ""


class ArtifactOwner:
    """Whoever keeps things. As it is here it keeps nothing that could be removed."""

    def collectables(self, models: Sequence[str]) -> tuple[Collectable, ...]:
        """Return all that is kept of the models of these `models`, or, where things have no model, all of it."""
        return ()

    def size_bytes(self, key: str) -> int:
        """Return how many bytes would be freed; 0 when it is gone already."""
        return 0

    def delete_collectables(self, key: str) -> None:
        """Remove it for good. Repeating it changes nothing. The caller knows that nothing needs it.

        Raises:
            Rejected: the key is none of this keeper's.
        """
        raise Rejected(f"{type(self).__name__} keeps no {key!r}; it was not removed")


class FolderArtifacts(ArtifactOwner):
    """Folders and files that each are one thing: found by the keeper's owner, measured and removed as a whole.

    `depth` is how many names a thing has below the root: 2 for `<job>/<attempt>`.
    """

    def __init__(self, root: Path, kind: str, depth: int) -> None:
        self.root, self.kind, self.depth = root, kind, depth

    def path_of(self, key: str) -> Path:
        """Return the folder or file of a key. Raises Rejected when it is not one of those below the root."""
        kind, _, name = key.partition(":")
        parts = name.split("/")
        if kind != self.kind or len(parts) != self.depth or {"", ".", ".."} & set(parts):
            raise Rejected(f"{key!r} is no {self.kind} below {self.root}; it was not removed")
        return self.root.joinpath(*parts)

    def collectables_of(self, paths: Iterable[Path], keep_reason: str = "") -> tuple[Collectable, ...]:
        """Return each place as a kept thing, last used when anything in it was last written."""
        names = {place.relative_to(self.root).as_posix(): place for place in sorted(paths)}
        return tuple(
            Collectable(f"{self.kind}:{name}", f"{self.kind} {name}", last_modified(place), keep_reason=keep_reason)
            for name, place in names.items()
        )

    def size_bytes(self, key: str) -> int:
        """Return the bytes of all files of the place; links are not followed."""
        place = self.path_of(key)
        files = [place] if place.is_file() else place.rglob("*")
        return sum(file.lstat().st_size for file in files if file.is_symlink() or file.is_file())

    def delete_collectables(self, key: str) -> None:
        """Remove the place: out of sight first, so that nobody finds a part of it."""
        place = self.path_of(key)
        if place.is_dir() and not place.is_symlink():
            place.rename(place.with_name(f"{DELETING_PREFIX}{place.name}"))
        else:
            place.unlink(missing_ok=True)
        for left in place.parent.glob(f"{DELETING_PREFIX}*"):  # this one, and what a sweep that was killed left
            shutil.rmtree(left, ignore_errors=True)


def last_modified(place: Path) -> datetime:
    """Return when the place, or anything in it, was last written; links are not followed."""
    times = [place.lstat().st_mtime, *(path.lstat().st_mtime for path in place.rglob("*"))]
    return datetime.fromtimestamp(max(times), UTC)

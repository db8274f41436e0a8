"""What an adapter keeps and could let go of: how `sweep` learns of it, measures it, and has it removed."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from blocks.common.errors import Rejected

SWEPT = ".swept-"
"""How the name of a folder begins that is being removed."""


@dataclass(frozen=True)
class Kept:
    """One thing that is kept.

    Attributes:
        key: its kind and name: `run:<id>`, `model:<id>`, `version:<model>/<number>`, `attempt:<job>/<number>`,
            `release:<endpoint>/<version>`, `tier:<model>/<digest>`, `fetched:<model>/<version>`, `result:<name>`,
            and in S3 `job:<attempt>`, `input:<digest>`, `transform:<job>`.
        words: what it is, for people.
        last_used: when it was last written or used, with a time zone.
        needs: the keys of what it cannot do without; what they name need not be there.
        held: why it must stay whatever else is known, such as "it is running"; "" when nothing holds it.
    """

    key: str
    words: str
    last_used: datetime
    needs: tuple[str, ...] = field(default=())
    held: str = ""


class Keeper:
    """Whoever keeps things. As it is here it keeps nothing that could be removed."""

    def kept(self, names: Sequence[str]) -> tuple[Kept, ...]:
        """Return all that is kept of the models of these `names`, or, where things have no model, all of it."""
        return ()

    def size(self, key: str) -> int:
        """Return how many bytes would be freed; 0 when it is gone already."""
        return 0

    def discard(self, key: str) -> None:
        """Remove it for good. Repeating it changes nothing. The caller knows that nothing needs it.

        Raises:
            Rejected: the key is none of this keeper's.
        """
        raise Rejected(f"{type(self).__name__} keeps no {key!r}; it was not removed")


class Folders(Keeper):
    """Folders and files that each are one thing: found by the keeper's owner, measured and removed as a whole.

    `depth` is how many names a thing has below the root: 2 for `<job>/<attempt>`.
    """

    def __init__(self, root: Path, kind: str, depth: int) -> None:
        self.root, self.kind, self.depth = root, kind, depth

    def place(self, key: str) -> Path:
        """Return the folder or file of a key. Raises Rejected when it is not one of those below the root."""
        kind, _, name = key.partition(":")
        parts = name.split("/")
        if kind != self.kind or len(parts) != self.depth or {"", ".", ".."} & set(parts):
            raise Rejected(f"{key!r} is no {self.kind} below {self.root}; it was not removed")
        return self.root.joinpath(*parts)

    def of(self, places: Iterable[Path], held: str = "") -> tuple[Kept, ...]:
        """Return each place as a kept thing, last used when anything in it was last written."""
        names = {place.relative_to(self.root).as_posix(): place for place in sorted(places)}
        return tuple(
            Kept(f"{self.kind}:{name}", f"{self.kind} {name}", last_written(place), held=held)
            for name, place in names.items()
        )

    def size(self, key: str) -> int:
        """Return the bytes of all files of the place; links are not followed."""
        place = self.place(key)
        files = [place] if place.is_file() else place.rglob("*")
        return sum(file.lstat().st_size for file in files if file.is_symlink() or file.is_file())

    def discard(self, key: str) -> None:
        """Remove the place: out of sight first, so that nobody finds a part of it."""
        place = self.place(key)
        if place.is_dir() and not place.is_symlink():
            place.rename(place.with_name(f"{SWEPT}{place.name}"))
        else:
            place.unlink(missing_ok=True)
        for left in place.parent.glob(f"{SWEPT}*"):  # this one, and what a sweep that was killed left
            shutil.rmtree(left, ignore_errors=True)


def last_written(place: Path) -> datetime:
    """Return when the place, or anything in it, was last written; links are not followed."""
    times = [place.lstat().st_mtime, *(path.lstat().st_mtime for path in place.rglob("*"))]
    return datetime.fromtimestamp(max(times), UTC)

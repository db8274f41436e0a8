"""Things that each are all objects below a prefix: how `sweep` finds, measures and removes them in S3."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from blocks.common.collectable import Kept
from blocks.common.errors import Rejected

NOTHING: Mapping[str, Any] = {}
BATCH = 1000
"""How many objects S3 removes in one call."""


@dataclass(frozen=True)
class Stored:
    """One object: its key, its bytes, and when it was last written."""

    key: str
    bytes: int
    written: datetime


class Prefixes:
    """Things named by the first `depth` parts of the keys below `root`. Errors are botocore's, but for wrong keys.

    With a `mark` an object of the thing's name and that ending, beside it, says that it is whole, and when it was used.

    In a bucket with versions what is removed stays as a version that is not current, until a lifecycle rule ends it.
    """

    def __init__(self, client: Any, bucket: str, root: str, kind: str, depth: int, mark: str = "") -> None:
        self._client, self._bucket, self._root, self._kind, self._depth = client, bucket, root, kind, depth
        self._mark = mark

    def place(self, key: str) -> str:
        """Return the prefix of a key, with its slash. Raises Rejected when it is none of those below the root."""
        kind, _, name = key.partition(":")
        parts = name.split("/")
        if kind != self._kind or len(parts) != self._depth or {"", ".", ".."} & set(parts):
            raise Rejected(f"{key!r} is no {self._kind} below s3://{self._bucket}/{self._root}; it was not removed")
        return f"{self._root}/{name}/"

    def kept(
        self, within: str = "", held: Mapping[str, str] = NOTHING, needs: Mapping[str, tuple[str, ...]] = NOTHING
    ) -> tuple[Kept, ...]:
        """Return each thing below `<root>/<within>`, last used when anything of it was last written.

        `held` and `needs` are by name.
        """
        newest: dict[str, datetime] = {}
        for stored in self._objects(f"{self._root}/{within}"):
            parts = stored.key.removeprefix(f"{self._root}/").split("/")
            if self._mark and len(parts) == self._depth and parts[-1].endswith(self._mark):
                parts = [*parts[:-1], parts[-1].removesuffix(self._mark), ""]
            if len(parts) > self._depth:
                name = "/".join(parts[: self._depth])
                newest[name] = max(newest.get(name, stored.written), stored.written)
        return tuple(
            Kept(f"{self._kind}:{name}", f"{self._kind} {name}", at, needs.get(name, ()), held.get(name, ""))
            for name, at in sorted(newest.items())
        )

    def size(self, key: str) -> int:
        """Return the bytes of all objects of a thing."""
        return sum(stored.bytes for stored in self._objects(self.place(key)))

    def discard(self, key: str, first: Sequence[str] = ()) -> None:
        """Remove a thing: those objects `first` by which it is taken for whole, so that nobody finds a part of it."""
        place = self.place(key)
        marks = [f"{place.rstrip('/')}{self._mark}"] if self._mark else []
        self.remove([*marks, *(f"{place}{name}" for name in first)])
        self.remove(stored.key for stored in self._objects(place))

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error. Raises Rejected when S3 keeps one."""
        waiting = list(keys)
        for start in range(0, len(waiting), BATCH):
            named = [{"Key": each} for each in waiting[start : start + BATCH]]
            told = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": named, "Quiet": True})
            if failed := told.get("Errors"):
                raise Rejected(f"S3 kept {len(failed)} objects, such as {failed[0]}")

    def _objects(self, prefix: str) -> Iterator[Stored]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        for page in pages:
            for found in page.get("Contents", ()):
                yield Stored(str(found["Key"]), int(found["Size"]), found["LastModified"])

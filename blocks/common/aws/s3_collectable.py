"""Things that each are all objects below a prefix: how `sweep` finds, measures and removes them in S3."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from blocks.common.collectable import Collectable
from blocks.common.errors import Rejected

EMPTY: Mapping[str, Any] = {}
DELETE_BATCH_SIZE = 1000
"""How many objects S3 removes in one call."""


@dataclass(frozen=True)
class S3Object:
    """One object: its key, its bytes, and when it was last written."""

    key: str
    size_bytes: int
    modified: datetime


class S3Artifacts:
    """Things named by the first `depth` parts of the keys below `root`. Errors are botocore's, but for wrong keys.

    With a `mark` an object of the thing's name and that ending, beside it, says that it is whole, and when it was used.

    In a bucket with versions what is removed stays as a version that is not current, until a lifecycle rule ends it.
    """

    def __init__(self, client: Any, bucket: str, root: str, kind: str, depth: int, complete_marker: str = "") -> None:
        self._client, self._bucket, self._root, self._kind, self._depth = client, bucket, root, kind, depth
        self._mark = complete_marker

    def prefix_of(self, key: str) -> str:
        """Return the prefix of a key, with its slash. Raises Rejected when it is none of those below the root."""
        kind, _, name = key.partition(":")
        parts = name.split("/")
        if kind != self._kind or len(parts) != self._depth or {"", ".", ".."} & set(parts):
            raise Rejected(f"{key!r} is no {self._kind} below s3://{self._bucket}/{self._root}; it was not removed")
        return f"{self._root}/{name}/"

    def collectables(
        self,
        below: str = "",
        keep_reasons: Mapping[str, str] = EMPTY,
        dependencies: Mapping[str, tuple[str, ...]] = EMPTY,
    ) -> tuple[Collectable, ...]:
        """Return each thing below `<root>/<within>`, last used when anything of it was last written.

        `keep_reasons` and `dependencies` are by name.
        """
        newest: dict[str, datetime] = {}
        for stored in self._objects(f"{self._root}/{below}"):
            parts = stored.key.removeprefix(f"{self._root}/").split("/")
            if self._mark and len(parts) == self._depth and parts[-1].endswith(self._mark):
                parts = [*parts[:-1], parts[-1].removesuffix(self._mark), ""]
            if len(parts) > self._depth:
                name = "/".join(parts[: self._depth])
                newest[name] = max(newest.get(name, stored.modified), stored.modified)
        return tuple(
            Collectable(
                f"{self._kind}:{name}",
                f"{self._kind} {name}",
                at,
                dependencies.get(name, ()),
                keep_reasons.get(name, ""),
            )
            for name, at in sorted(newest.items())
        )

    def size_bytes(self, key: str) -> int:
        """Return the bytes of all objects of a thing."""
        return sum(stored.size_bytes for stored in self._objects(self.prefix_of(key)))

    def delete_collectables(self, key: str, delete_first: Sequence[str] = ()) -> None:
        """Remove a thing: those objects `delete_first` by which it is taken for whole, so that nobody finds a part of it."""
        place = self.prefix_of(key)
        marks = [f"{place.rstrip('/')}{self._mark}"] if self._mark else []
        self.remove([*marks, *(f"{place}{name}" for name in delete_first)])
        self.remove(stored.key for stored in self._objects(place))

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error. Raises Rejected when S3 keeps one."""
        waiting = list(keys)
        for start in range(0, len(waiting), DELETE_BATCH_SIZE):
            named = [{"Key": each} for each in waiting[start : start + DELETE_BATCH_SIZE]]
            told = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": named, "Quiet": True})
            if failed := told.get("Errors"):
                raise Rejected(f"S3 kept {len(failed)} objects, such as {failed[0]}")

    def _objects(self, prefix: str) -> Iterator[S3Object]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        for page in pages:
            for found in page.get("Contents", ()):
                yield S3Object(str(found["Key"]), int(found["Size"]), found["LastModified"])

"""Collectable artifacts in S3, each made of all objects below one prefix: listed, measured and deleted."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from blocks.common.aws.s3_folders import S3Folders
from blocks.common.errors import Rejected
from blocks.records.collectable import Collectable

EMPTY: Mapping[str, Any] = {}


class S3Artifacts:
    """Artifacts named by the first `depth` parts of the keys below `root`. Raises botocore's errors.

    If `complete_marker` is set, an object `<artifact><marker>` says that the artifact is complete, and the object's
    time says when the artifact was last used. In a versioned bucket a deleted object remains as a noncurrent version
    until a lifecycle rule removes it.
    """

    def __init__(self, folders: S3Folders, root: str, kind: str, depth: int, complete_marker: str = "") -> None:
        self._folders, self._root, self._kind, self._depth = folders, root, kind, depth
        self._mark = complete_marker

    def prefix_of(self, key: str) -> str:
        """Return the prefix of a key, with a trailing slash. Raises Rejected if no artifact can have that key."""
        kind, _, name = key.partition(":")
        parts = name.split("/")
        if kind != self._kind or len(parts) != self._depth or {"", ".", ".."} & set(parts):
            root = self._folders.url(self._root)
            raise Rejected(f"{key!r} is not a {self._kind} below {root}; it was not deleted")
        return f"{self._root}/{name}/"

    def collectables(
        self,
        below: str = "",
        keep_reasons: Mapping[str, str] = EMPTY,
        dependencies: Mapping[str, tuple[str, ...]] = EMPTY,
    ) -> tuple[Collectable, ...]:
        """Return each artifact below `<root>/<below>`, last used when any of its objects was last written.

        `keep_reasons` and `dependencies` are by name.
        """
        newest: dict[str, datetime] = {}
        for stored in self._folders.objects(f"{self._root}/{below}"):
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
        """Return the bytes of all objects of an artifact."""
        return sum(stored.size_bytes for stored in self._folders.objects(self.prefix_of(key)))

    def delete_collectables(self, key: str, delete_first: Sequence[str] = ()) -> None:
        """Delete an artifact; first the objects in `delete_first`, which mark it as complete.

        So no reader finds a partial artifact.
        """
        prefix = self.prefix_of(key)
        marks = [f"{prefix.rstrip('/')}{self._mark}"] if self._mark else []
        self._folders.delete([*marks, *(f"{prefix}{name}" for name in delete_first)])
        self._folders.delete(stored.key for stored in self._folders.objects(prefix))

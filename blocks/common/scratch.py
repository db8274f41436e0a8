"""The scratch folder of an environment: tiers and fetched models, all of which can be made again."""

from collections.abc import Sequence
from pathlib import Path

from blocks.common.collectable import ArtifactOwner, Collectable, FolderArtifacts
from blocks.common.errors import Rejected


class ScratchArtifacts(ArtifactOwner):
    """Keeps `tiers/<model>/<digest>` and `models/<model>/<version>`."""

    def __init__(self, root: Path) -> None:
        self._parts = {
            "tier": FolderArtifacts(root / "tiers", "tier", depth=2),
            "fetched": FolderArtifacts(root / "models", "fetched", depth=2),
        }

    def collectables(self, models: Sequence[str]) -> tuple[Collectable, ...]:
        """Return the tiers and fetched versions of these models; see `ArtifactOwner.kept`."""
        return tuple(
            kept
            for part in self._parts.values()
            for name in models
            for kept in part.collectables_of((part.root / name).glob("*"))
        )

    def size_bytes(self, key: str) -> int:
        """Return the bytes of a tier or a fetched version; see `ArtifactOwner.size`."""
        return self._part(key).size_bytes(key)

    def delete_collectables(self, key: str) -> None:
        """Remove a tier or a fetched version; see `ArtifactOwner.discard`."""
        self._part(key).delete_collectables(key)

    def _part(self, key: str) -> FolderArtifacts:
        kind = key.partition(":")[0]
        if kind not in self._parts:
            raise Rejected(f"scratch keeps no {key!r}; it was not removed")
        return self._parts[kind]

"""The scratch folder of an environment: tiers and fetched models, all of which can be made again."""

from collections.abc import Sequence
from pathlib import Path

from blocks.common.collectable import Folders, Keeper, Kept
from blocks.common.errors import Rejected


class Scratch(Keeper):
    """Keeps `tiers/<model>/<digest>` and `models/<model>/<version>`."""

    def __init__(self, root: Path) -> None:
        self._parts = {
            "tier": Folders(root / "tiers", "tier", depth=2),
            "fetched": Folders(root / "models", "fetched", depth=2),
        }

    def kept(self, names: Sequence[str]) -> tuple[Kept, ...]:
        """Return the tiers and fetched versions of these models; see `Keeper.kept`."""
        return tuple(
            kept for part in self._parts.values() for name in names for kept in part.of((part.root / name).glob("*"))
        )

    def size(self, key: str) -> int:
        """Return the bytes of a tier or a fetched version; see `Keeper.size`."""
        return self._part(key).size(key)

    def discard(self, key: str) -> None:
        """Remove a tier or a fetched version; see `Keeper.discard`."""
        self._part(key).discard(key)

    def _part(self, key: str) -> Folders:
        kind = key.partition(":")[0]
        if kind not in self._parts:
            raise Rejected(f"scratch keeps no {key!r}; it was not removed")
        return self._parts[kind]

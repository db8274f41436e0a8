"""A lake in a folder of one file system with hard links, for any number of processes on it at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import Field

from blocks.common.errors import Rejected, Unavailable
from blocks.lake.base import Size
from blocks.lake.store import STAGING, FolderStore, Store
from blocks.lake.stored import StoredLake


class LocalLake(StoredLake):
    """Append-only data sets in a local folder."""

    _block_type_name = "Ratchet lake (local folder)"
    _block_type_slug = "ratchet-lake-local"

    root: Path = Field(description="Folder of the lake, on one file system; made when it is missing.")

    def open_store(self) -> Store:
        """Return the folder as a store."""
        return FolderStore(self.root)

    def spill(self) -> Path:
        """Return the folder beside the data sets in which large appends are sorted."""
        return self.root / STAGING

    def memory(self) -> Path:
        """Return the file that remembers which files were verified."""
        return self.root / STAGING / "verified.jsonl"

    def collect(self, dataset: str, *, before: datetime, dry_run: bool = False) -> Size:
        """Remove what nothing names, and what dead writers left beside: see `Lake.collect`."""
        removed = super().collect(dataset, before=before, dry_run=dry_run)
        if not dry_run:
            FolderStore(self.root).sweep()
        return removed

    @contextmanager
    def port_errors(self, dataset: str, doing: str) -> Iterator[None]:
        """Turn the file system's errors into the port's."""
        problem = f"{dataset}: the lake in {self.root} could not be {doing}"
        try:
            yield
        except PermissionError as cause:
            raise Rejected(f"{problem}: {cause}. Give this user the right to it.") from cause
        except OSError as cause:
            raise Unavailable(f"{problem}: {cause}. Look at the disk's free space and health.") from cause

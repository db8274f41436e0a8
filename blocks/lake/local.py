"""A lake in a folder of one file system with hard links, for any number of processes on it at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import Field

from blocks.common.errors import Rejected, Unavailable
from blocks.lake.base import FileTotals
from blocks.lake.object_store import STAGING_FOLDER, FolderObjectStore, ObjectStore
from blocks.lake.object_store_lake import ObjectStoreLake


class LocalLake(ObjectStoreLake):
    """Append-only data sets in a local folder."""

    _block_type_name = "Ratchet lake (local folder)"
    _block_type_slug = "ratchet-lake-local"

    root: Path = Field(description="Folder of the lake, on one file system; made when it is missing.")

    def open_store(self) -> ObjectStore:
        """Return the folder as a store."""
        return FolderObjectStore(self.root)

    def spill(self) -> Path:
        """Return the folder beside the data sets in which large appends are sorted."""
        return self.root / STAGING_FOLDER

    def verified_cache_file(self) -> Path:
        """Return the file that remembers which files were verified."""
        return self.root / STAGING_FOLDER / "verified.jsonl"

    def collect_orphans(self, dataset: str, *, before: datetime, dry_run: bool = False) -> FileTotals:
        """Remove what nothing names, and what dead writers left beside: see `Lake.collect`."""
        removed = super().collect_orphans(dataset, before=before, dry_run=dry_run)
        if not dry_run:
            FolderObjectStore(self.root).remove_abandoned()
        return removed

    @contextmanager
    def port_errors(self, dataset: str, action: str) -> Iterator[None]:
        """Turn the file system's errors into the port's."""
        problem = f"{dataset}: the lake in {self.root} could not be {action}"
        try:
            yield
        except PermissionError as cause:
            raise Rejected(f"{problem}: {cause}. Give this user the right to it.") from cause
        except OSError as cause:
            raise Unavailable(f"{problem}: {cause}. Look at the disk's free space and health.") from cause

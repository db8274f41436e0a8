"""A lake in a local folder with hard links, which any number of processes may use at the same time."""

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

    root: Path = Field(description="Folder of the lake, on one file system; created if missing.")

    def open_store(self) -> ObjectStore:
        """Return the folder as a store."""
        return FolderObjectStore(self.root)

    def spill(self) -> Path:
        """Return the folder in which large appends are sorted."""
        return self.root / STAGING_FOLDER

    def verified_cache_file(self) -> Path:
        """Return the file with the list of verified files."""
        return self.root / STAGING_FOLDER / "verified.jsonl"

    def collect_orphans(self, dataset: str, *, before: datetime, dry_run: bool = False) -> FileTotals:
        """Delete orphans, and temporary files of dead writers: see `Lake.collect_orphans`."""
        removed = super().collect_orphans(dataset, before=before, dry_run=dry_run)
        if not dry_run:
            FolderObjectStore(self.root).remove_abandoned()
        return removed

    @contextmanager
    def port_errors(self, dataset: str, action: str) -> Iterator[None]:
        """Translate errors of the file system into port errors."""
        problem = f"{dataset}: the lake in {self.root} could not be {action}"
        try:
            yield
        except PermissionError as cause:
            raise Rejected(f"{problem}: {cause}. Give this user the permission.") from cause
        except OSError as cause:
            raise Unavailable(f"{problem}: {cause}. Check the disk's free space and health.") from cause

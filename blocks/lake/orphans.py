"""Deletion of orphans (files that no log entry references) without deleting files of a running writer.

First a log entry, the fence, names the folders to delete. A writer whose folder is fenced can no longer commit: its own
entry would come after the fence, and before it writes that entry it reads all earlier ones. Only then the files are
deleted. The order of the log decides, not clocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from blocks.common.errors import ConcurrentWrite
from blocks.lake.base import FileTotals
from blocks.lake.dataset_log import DatasetLog
from blocks.lake.entries import CompactedRange, LogEntry
from blocks.lake.object_store import ObjectInfo, ObjectStore

_ATTEMPTS = 1_000


@dataclass
class _DataFolder:
    """The files of one append or compaction."""

    files: list[ObjectInfo] = field(default_factory=list)

    @property
    def modified(self) -> datetime:
        return max((file.modified for file in self.files), default=datetime(1, 1, 1, tzinfo=UTC))


def collect_orphans(store: ObjectStore, log: DatasetLog, before: datetime, *, dry_run: bool) -> FileTotals:
    """Delete unreferenced folders that were not written to since `before`; return the total size of their files.

    With `dry_run` nothing is deleted.
    """
    for _ in range(_ATTEMPTS):
        head = log.head()
        if head is None:
            return FileTotals(0, 0)
        folders = _folders(store, log.dataset)
        superseded = {run for run in head.state.runs if _is_superseded(log, head, run, folders, before)}
        orphans = _unreferenced_folders(log, head, superseded, folders, before)
        files = [file for name in orphans for file in folders[name].files]
        size = FileTotals(len(files), sum(file.size_bytes for file in files))
        if dry_run or not orphans:
            return size
        runs = tuple(run for run in head.state.runs if run not in superseded)
        state = replace(head.state, others=(*head.state.others, head.log + 1), runs=runs)
        if log.claim(LogEntry(head.log + 1, head.digest, state, fenced=tuple(sorted(orphans)))):
            for file in files:
                store.delete(file.key)
            return size
    raise ConcurrentWrite(f"{log.dataset}: {_ATTEMPTS} other writers were first. Try again.")


def _folders(store: ObjectStore, dataset: str) -> dict[str, _DataFolder]:
    folders: dict[str, _DataFolder] = {}
    for stored in store.list_objects(f"{dataset}/_data/"):
        name = stored.key.removeprefix(f"{dataset}/").rpartition("/")[0]
        folders.setdefault(name, _DataFolder()).files.append(stored)
    return folders


def _is_superseded(
    log: DatasetLog, head: LogEntry, run: CompactedRange, folders: Mapping[str, _DataFolder], before: datetime
) -> bool:
    """Return whether a longer compaction has contained its rows since `before`, so that no read needs it."""
    longer = [r for r in head.state.runs if r != run and r.first <= run.first and r.last >= run.last]
    ages = [folders.get(log.entry(r.log).folder, _DataFolder()).modified for r in longer]
    return any(age < before for age in ages)


def _unreferenced_folders(
    log: DatasetLog,
    head: LogEntry,
    superseded: set[CompactedRange],
    folders: Mapping[str, _DataFolder],
    before: datetime,
) -> list[str]:
    active = {run.log for run in head.state.runs if run not in superseded}
    entries = log.entries(range(1, head.log + 1))
    referenced = {entry.folder for entry in entries if entry.snapshot or entry.log in active}
    return [name for name, folder in folders.items() if name not in referenced and folder.modified < before]

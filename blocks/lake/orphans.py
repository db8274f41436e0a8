"""Files that nothing names any more, and how they are removed without taking one from a living writer.

First an entry in the log, a fence, says which folders are removed. A writer whose folder is fenced can then no
longer commit: its own entry has to come after the fence, and before it claims that place it reads what came
before. Only then are the files removed. The order of the log decides, whatever the clocks and pauses.
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
    """Remove the folders that nothing names and nobody wrote to since `before`; return the size of their files.

    With `dry_run` nothing is removed.
    """
    for _ in range(_ATTEMPTS):
        head = log.head()
        if head is None:
            return FileTotals(0, 0)
        folders = _folders(store, log.dataset)
        gone = {run for run in head.state.runs if _is_superseded(log, head, run, folders, before)}
        dead = _unreferenced_folders(log, head, gone, folders, before)
        removed = [file for name in dead for file in folders[name].files]
        size = FileTotals(len(removed), sum(file.size_bytes for file in removed))
        if dry_run or not dead:
            return size
        runs = tuple(run for run in head.state.runs if run not in gone)
        state = replace(head.state, others=(*head.state.others, head.log + 1), runs=runs)
        if log.claim(LogEntry(head.log + 1, head.digest, state, fenced=tuple(sorted(dead)))):
            for file in removed:
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
    """Return whether a longer compaction has had its rows since `before`: no read needs it, though it still helps."""
    longer = [r for r in head.state.runs if r != run and r.first <= run.first and r.last >= run.last]
    ages = [folders.get(log.entry(r.log).folder, _DataFolder()).modified for r in longer]
    return any(age < before for age in ages)


def _unreferenced_folders(
    log: DatasetLog, head: LogEntry, gone: set[CompactedRange], folders: Mapping[str, _DataFolder], before: datetime
) -> list[str]:
    kept = {run.log for run in head.state.runs if run not in gone}
    entries = log.entries(range(1, head.log + 1))
    named = {entry.folder for entry in entries if entry.snapshot or entry.log in kept}
    return [name for name, folder in folders.items() if name not in named and folder.modified < before]

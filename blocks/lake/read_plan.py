"""The files that a fixed read opens: compactions, and the files of the other snapshots.

A compaction replaces its snapshots if the read contains all of them; otherwise their own files are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from blocks.lake.base import DataFile, FileTotals
from blocks.lake.dataset_log import DatasetLog
from blocks.lake.entries import CompactedRange, DatasetState, LogEntry
from blocks.lake.layout import may_hold_below


@dataclass(frozen=True)
class PlannedFile:
    """One file of a read: its key, and its description in the manifest."""

    key: str
    file: DataFile


@dataclass(frozen=True)
class ReadUnit:
    """The files with the rows of the snapshots `first` to `last`: those of one snapshot, or of a compaction."""

    first: int
    last: int
    files: tuple[PlannedFile, ...]
    compacted: bool


def plan_read(
    log: DatasetLog, latest_state: DatasetState, sequence: int, below_bucket: int | None = None
) -> list[ReadUnit]:
    """Return the units of a read up to `sequence`, oldest first; `latest_state` has the active compactions."""
    numbers = [
        run.log if isinstance(run, CompactedRange) else latest_state.entry_number_of(run)
        for run in choose_ranges(latest_state.runs, sequence)
    ]
    return [unit_for_entry(log.dataset, entry, below_bucket) for entry in log.entries(numbers)]


def unit_for_entry(dataset: str, entry: LogEntry, below_bucket: int | None = None) -> ReadUnit:
    """Return the files of a snapshot's or a compaction's entry that may have rows below the bucket."""
    if entry.compaction:
        first, last, files = entry.compaction.first, entry.compaction.last, entry.compaction.files
    else:
        assert entry.snapshot is not None  # noqa: S101 - a fence has no files
        first = last = entry.snapshot.sequence
        files = entry.snapshot.files
    pieces = tuple(
        PlannedFile(f"{dataset}/{entry.folder}/{file.name}", file)
        for file in files
        if may_hold_below(file, below_bucket)
    )
    return ReadUnit(first, last, pieces, entry.compaction is not None)


def choose_ranges(runs: Sequence[CompactedRange], sequence: int) -> list[CompactedRange | int]:
    """Return the longest runs that end by `sequence`, and the numbers of the snapshots between them, in order."""
    usable = [run for run in runs if run.last <= sequence]
    chosen: list[CompactedRange | int] = []
    number = 1
    while number <= sequence:
        longest = max((run for run in usable if run.first == number), key=lambda run: run.last, default=None)
        chosen.append(longest or number)
        number = longest.last + 1 if longest else number + 1
    return chosen


def total_size(files: Sequence[PlannedFile]) -> FileTotals:
    """Return the number of these files, and their total size."""
    return FileTotals(len(files), sum(planned.file.bytes for planned in files))

"""What a fixed read has to open: runs of snapshots that were compacted, and the files of the others.

A compaction stands in for its snapshots when the read holds them all; otherwise their own files are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from blocks.lake.base import DataFile, FileTotals
from blocks.lake.dataset_log import DatasetLog
from blocks.lake.entries import CompactedRange, DatasetState, LogEntry
from blocks.lake.layout import may_hold_below


@dataclass(frozen=True)
class PlannedFile:
    """One file of a read: its key, and what it has to be."""

    key: str
    file: DataFile


@dataclass(frozen=True)
class ReadUnit:
    """Files that hold the rows of the snapshots `first` to `last`: one snapshot's own, or a compaction's."""

    first: int
    last: int
    files: tuple[PlannedFile, ...]
    compacted: bool


def plan_read(
    log: DatasetLog, latest_state: DatasetState, sequence: int, below_bucket: int | None = None
) -> list[ReadUnit]:
    """Return what a read up to `sequence` opens, oldest first; `latest_state` is the newest state, which knows the runs."""
    numbers = [
        run.log if isinstance(run, CompactedRange) else latest_state.entry_number_of(run)
        for run in choose_ranges(latest_state.runs, sequence)
    ]
    return [unit_for_entry(log.dataset, entry, below_bucket) for entry in log.entries(numbers)]


def unit_for_entry(dataset: str, entry: LogEntry, below_bucket: int | None = None) -> ReadUnit:
    """Return the files of a snapshot's or a compaction's entry that may hold rows below the bucket."""
    if entry.compaction:
        first, last, files = entry.compaction.first, entry.compaction.last, entry.compaction.files
    else:
        assert entry.snapshot is not None  # noqa: S101 - a fence is never asked for its files
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
    ending = [run for run in runs if run.last <= sequence]
    chosen: list[CompactedRange | int] = []
    at = 1
    while at <= sequence:
        here = max((run for run in ending if run.first == at), key=lambda run: run.last, default=None)
        chosen.append(here or at)
        at = here.last + 1 if here else at + 1
    return chosen


def total_size(pieces: Sequence[PlannedFile]) -> FileTotals:
    """Return how many files these are, and their bytes."""
    return FileTotals(len(pieces), sum(piece.file.bytes for piece in pieces))

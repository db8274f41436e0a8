"""What a fixed read has to open: runs of snapshots that were compacted, and the files of the others.

A compaction stands in for its snapshots when the read holds them all; otherwise their own files are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from blocks.lake.base import DataFile, Size
from blocks.lake.entries import Entry, Run, State
from blocks.lake.layout import reaches_below
from blocks.lake.log import Log


@dataclass(frozen=True)
class Piece:
    """One file of a read: its key, and what it has to be."""

    key: str
    file: DataFile


@dataclass(frozen=True)
class Unit:
    """Files that hold the rows of the snapshots `first` to `last`: one snapshot's own, or a compaction's."""

    first: int
    last: int
    pieces: tuple[Piece, ...]
    compacted: bool


def units_of(log: Log, now: State, sequence: int, below_bucket: int | None = None) -> list[Unit]:
    """Return what a read up to `sequence` opens, oldest first; `now` is the newest state, which knows the runs."""
    numbers = [run.log if isinstance(run, Run) else now.log_of(run) for run in cover(now.runs, sequence)]
    return [unit_of(log.dataset, entry, below_bucket) for entry in log.entries(numbers)]


def unit_of(dataset: str, entry: Entry, below_bucket: int | None = None) -> Unit:
    """Return the files of a snapshot's or a compaction's entry that may hold rows below the bucket."""
    if entry.compaction:
        first, last, files = entry.compaction.first, entry.compaction.last, entry.compaction.files
    else:
        assert entry.snapshot is not None  # noqa: S101 - a fence is never asked for its files
        first = last = entry.snapshot.sequence
        files = entry.snapshot.files
    pieces = tuple(
        Piece(f"{dataset}/{entry.folder}/{file.name}", file) for file in files if reaches_below(file, below_bucket)
    )
    return Unit(first, last, pieces, entry.compaction is not None)


def cover(runs: Sequence[Run], sequence: int) -> list[Run | int]:
    """Return the longest runs that end by `sequence`, and the numbers of the snapshots between them, in order."""
    ending = [run for run in runs if run.last <= sequence]
    chosen: list[Run | int] = []
    at = 1
    while at <= sequence:
        here = max((run for run in ending if run.first == at), key=lambda run: run.last, default=None)
        chosen.append(here or at)
        at = here.last + 1 if here else at + 1
    return chosen


def size_of(pieces: Sequence[Piece]) -> Size:
    """Return how many files these are, and their bytes."""
    return Size(len(pieces), sum(piece.file.bytes for piece in pieces))

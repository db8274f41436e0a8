"""What a round of maintenance looks at, and how it is told: data sets, a sample of their reads, the report."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.logic.model.data import DataSpec
from tasks.logic.sample.buckets import BUCKETS

READS = 5
"""So many reads of a data set are held against what they returned before."""

ROWS = 500_000
"""A read of more rows is looked at by its first buckets only: about so many rows of it."""


@dataclass(frozen=True)
class Measured:
    """Files and their bytes: those stored, and those that a read of everything opens."""

    stored_files: int
    stored_bytes: int
    opened_files: int


@dataclass(frozen=True)
class Tended:
    """What was done for one data set, or would be in a dry run.

    `merged` small files lie in larger ones now; `orphans` are the files that nothing names, of `orphan_bytes`;
    `reads` were repeated and returned the same. `problem` says why the data set was left as it is.
    """

    dataset: str
    snapshots: int = 0
    before: Measured = Measured(0, 0, 0)
    after: Measured = Measured(0, 0, 0)
    merged: int = 0
    orphans: int = 0
    orphan_bytes: int = 0
    reads: int = 0
    problem: str = ""


def datasets_of(data: DataSpec, there: Iterable[str]) -> list[str]:
    """Return which of the lake's data sets are a model's: tables, quarantines, predictions, published features."""
    own = [data.dataset, *(table.dataset for table in data.tables.values())]
    own += [f"{name}-quarantine" for name in own]
    own += [f"{data.dataset}-predictions", *([data.publish] if data.publish else [])]
    return sorted({*own} & {*there})


def sampled_reads(snapshots: Sequence[str]) -> list[str]:
    """Return the snapshots whose reads are repeated: the oldest, the newest, and others by chance.

    The chance follows from the newest one, so that a round can be done again, and another night sees others.
    """
    if len(snapshots) <= READS:
        return list(snapshots)
    inner = random.Random(snapshots[-1]).sample(range(1, len(snapshots) - 1), READS - 2)  # noqa: S311  (no secret)
    return [snapshots[place] for place in (0, *sorted(inner), len(snapshots) - 1)]


def bucket_limit(rows: int) -> int | None:
    """Return the bucket below which a read of so many rows is looked at; None for all of it."""
    return None if rows <= ROWS else max(1, BUCKETS * ROWS // rows)


def report(tended: Sequence[Tended], *, dry_run: bool) -> str:
    """Return what was done as markdown, a line a data set."""
    if not tended:
        return "There is no data set: nothing has landed yet."
    head = "Tried out: nothing was written or removed." if dry_run else "Done."
    problems = [each for each in tended if each.problem]
    said = [f"**{each.dataset}** was left as it is: {each.problem}" for each in problems]
    lines = [
        f"**{head}** {sum(each.merged for each in tended):,} small files "
        f"{'would lie' if dry_run else 'now lie'} in larger ones too; {sum(each.orphans for each in tended):,} orphans "
        f"({_megabytes(sum(each.orphan_bytes for each in tended))}) {'would be' if dry_run else 'were'} removed; "
        f"{sum(each.reads for each in tended)} reads as of earlier and of now were repeated, each with the same rows.",
        *said,
        "| data set | snapshots | files a full read opens | files stored | bytes stored | merged | orphans | reads |\n"
        "|---|---|---|---|---|---|---|---|\n" + "\n".join(map(_line, tended)),
    ]
    return "\n\n".join(lines)


def _line(one: Tended) -> str:
    opened = f"{one.before.opened_files:,} → {one.after.opened_files:,}"
    stored = f"{one.before.stored_files:,} → {one.after.stored_files:,}"
    size = f"{_megabytes(one.before.stored_bytes)} → {_megabytes(one.after.stored_bytes)}"
    orphans = f"{one.orphans:,} ({_megabytes(one.orphan_bytes)})" if one.orphans else "0"
    cells = [one.dataset, f"{one.snapshots:,}", opened, stored, size, f"{one.merged:,}", orphans, str(one.reads)]
    return f"| {' | '.join(cells)} |"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"

"""What a round of maintenance looks at, and how it is told: data sets, a sample of their reads, the report."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.shared.rules.model.data import DataSpec
from tasks.shared.rules.rows.buckets import BUCKETS

SAMPLED_READS = 5
"""So many reads of a data set are held against what they returned before."""

MAX_DIGEST_ROWS = 500_000
"""A read of more rows is looked at by its first buckets only: about so many rows of it."""

_COLUMNS = (
    "data set",
    "snapshots",
    "files a full read opens",
    "files stored",
    "bytes stored",
    "merged",
    "orphans",
    "reads verified, repeated",
)


@dataclass(frozen=True)
class StorageStats:
    """Files and their bytes: those stored, and those that a read of everything opens."""

    stored_files: int
    stored_bytes: int
    opened_files: int


@dataclass(frozen=True)
class DatasetMaintenance:
    """What was done for one data set, or would be in a dry run.

    `merged` small files lie in larger ones now; `orphans` are the files that nothing names, of `orphan_bytes`.
    `reads` were read, their files verified; `repeated` of them, when anything had changed, once more, and returned
    the same. `problem` says what is not in order.
    """

    dataset: str
    snapshots: int = 0
    before: StorageStats = StorageStats(0, 0, 0)
    after: StorageStats = StorageStats(0, 0, 0)
    merged: int = 0
    orphans: int = 0
    orphan_bytes: int = 0
    reads: int = 0
    repeated: int = 0
    problem: str = ""


def model_dataset_names(data: DataSpec, there: Iterable[str], further: Iterable[str] = ()) -> list[str]:
    """Return which of the lake's data sets are a model's: tables, quarantines, predictions, published features.

    And the `further` ones, which it writes in a namespace.
    """
    own = [data.dataset, *(table.dataset for table in data.tables.values())]
    own += [f"{name}-quarantine" for name in own]
    own += [f"{data.dataset}-predictions", *([data.publish] if data.publish else [])]
    return sorted({*own, *further} & {*there})


def sampled_reads(snapshots: Sequence[str]) -> list[str]:
    """Return the snapshots whose reads are repeated: the oldest, the newest, and others by chance.

    The chance follows from the newest one, so that a round can be done again, and another night sees others.
    """
    if len(snapshots) <= SAMPLED_READS:
        return list(snapshots)
    inner = random.Random(snapshots[-1]).sample(range(1, len(snapshots) - 1), SAMPLED_READS - 2)  # noqa: S311  (no secret)
    return [snapshots[place] for place in (0, *sorted(inner), len(snapshots) - 1)]


def digest_bucket_limit(rows: int) -> int | None:
    """Return the bucket below which a read of so many rows is looked at; None for all of it."""
    return None if rows <= MAX_DIGEST_ROWS else max(1, BUCKETS * MAX_DIGEST_ROWS // rows)


def maintenance_markdown(tended: Sequence[DatasetMaintenance], *, dry_run: bool) -> str:
    """Return what was done as markdown, a line a data set."""
    if not tended:
        return "There is no data set: nothing has landed yet."
    files, orphans = sum(each.merged for each in tended), sum(each.orphans for each in tended)
    freed, reads = _megabytes(sum(each.orphan_bytes for each in tended)), sum(each.reads for each in tended)
    repeated = sum(each.repeated for each in tended)
    done = (
        f"**Tried out: nothing was written or removed.** {files:,} small files would lie in larger ones too; "
        f"{orphans:,} orphans ({freed}) would be removed"
        if dry_run
        else f"**Done.** {files:,} small files now lie in larger ones too; {orphans:,} orphans ({freed}) were removed"
    )
    return "\n\n".join(
        [
            f"{done}; of {reads} reads as of earlier and of now the files are as they were written; {repeated} were "
            "repeated afterwards, each with the same rows.",
            *(f"**{each.dataset}** is not in order: {each.problem}" for each in tended if each.problem),
            "\n".join([f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|", *map(_table_row, tended)]),
        ]
    )


def _table_row(one: DatasetMaintenance) -> str:
    opened = f"{one.before.opened_files:,} → {one.after.opened_files:,}"
    stored = f"{one.before.stored_files:,} → {one.after.stored_files:,}"
    size = f"{_megabytes(one.before.stored_bytes)} → {_megabytes(one.after.stored_bytes)}"
    orphans = f"{one.orphans:,} ({_megabytes(one.orphan_bytes)})" if one.orphans else "0"
    cells = [one.dataset, f"{one.snapshots:,}", opened, stored, size, f"{one.merged:,}", orphans]
    cells.append(f"{one.reads}, {one.repeated}")
    return f"| {' | '.join(cells)} |"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"

"""Rules of the lake's maintenance: the data sets of a model, the sample of reads to verify, and the report."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runtime.foreign_text import Markdown, markdown_table
from tasks.shared.rules.model.data import DataSpec
from tasks.shared.rules.rows.buckets import BUCKETS

SAMPLED_READS = 5
"""The number of reads of a data set that are verified."""

MAX_DIGEST_ROWS = 500_000
"""Of a larger read, only the first buckets are digested: about this many rows."""

_COLUMNS = (
    "data set",
    "snapshots",
    "files a full read opens",
    "files stored",
    "bytes stored",
    "merged",
    "orphans",
    "reads verified, repeated",
    "Delta commits written",
)


@dataclass(frozen=True)
class StorageStats:
    """The stored files, their bytes, and the number of files that a full read opens."""

    stored_files: int
    stored_bytes: int
    opened_files: int


@dataclass(frozen=True)
class DatasetMaintenance:
    """The maintenance of one data set, or its plan in a dry run.

    `merged` small files became larger ones; `orphans` of `orphan_bytes` were removed. The files of `reads` reads were
    verified, and `repeated` of these returned the same rows after a change. `published` commits of its Delta table were
    written; `not_published` is the reason why it has none. `problem` is "" for none.
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
    published: int = 0
    not_published: str = ""
    problem: str = ""


def model_dataset_names(data: DataSpec, existing: Iterable[str], further: Iterable[str] = ()) -> list[str]:
    """Return the existing data sets of a model: tables, quarantines, predictions and published features.

    `further` are data sets that the model writes in a namespace.
    """
    own = [data.dataset, *(table.dataset for table in data.tables.values())]
    own += [f"{name}-quarantine" for name in own]
    own += [f"{data.dataset}-predictions", *([data.publish] if data.publish else [])]
    return sorted({*own, *further} & {*existing})


def sampled_reads(snapshots: Sequence[str]) -> list[str]:
    """Return the snapshots whose reads are verified: the oldest, the newest, and a random sample of the others.

    The newest snapshot is the seed, so that a run can be repeated, and later runs verify other snapshots.
    """
    if len(snapshots) <= SAMPLED_READS:
        return list(snapshots)
    inner = random.Random(snapshots[-1]).sample(range(1, len(snapshots) - 1), SAMPLED_READS - 2)  # noqa: S311  (no secret)
    return [snapshots[place] for place in (0, *sorted(inner), len(snapshots) - 1)]


def digest_bucket_limit(rows: int) -> int | None:
    """Return the bucket below which a read of this many rows is digested; None for all of them."""
    return None if rows <= MAX_DIGEST_ROWS else max(1, BUCKETS * MAX_DIGEST_ROWS // rows)


def maintenance_markdown(results: Sequence[DatasetMaintenance], *, dry_run: bool) -> Markdown:
    """Return the report as Markdown, with one line per data set."""
    if not results:
        return Markdown("There is no data set yet: nothing was ingested.")
    files, orphans = sum(each.merged for each in results), sum(each.orphans for each in results)
    freed, reads = _megabytes(sum(each.orphan_bytes for each in results)), sum(each.reads for each in results)
    repeated = sum(each.repeated for each in results)
    title, would = "Done.", "were"
    if dry_run:
        title, would = "Dry run: nothing was written or removed.", "would be"
    problem, unpublished = Markdown("**{}** has a problem: {}"), Markdown("**{}** has no Delta table: {}.")
    return Markdown("\n\n").join(
        [
            Markdown("**{}** ").format(title)
            + f"{files:,} small files {would} merged; {orphans:,} orphaned files ({freed}) {would} removed. "
            f"The files of {reads} reads are unchanged; {repeated} reads were repeated afterwards and returned the "
            "same rows.",
            *(problem.format(each.dataset, each.problem) for each in results if each.problem),
            *(unpublished.format(each.dataset, each.not_published) for each in results if each.not_published),
            markdown_table(_COLUMNS, map(_table_row, results)),
        ]
    )


def _table_row(one: DatasetMaintenance) -> list[str]:
    opened = f"{one.before.opened_files:,} → {one.after.opened_files:,}"
    stored = f"{one.before.stored_files:,} → {one.after.stored_files:,}"
    size = f"{_megabytes(one.before.stored_bytes)} → {_megabytes(one.after.stored_bytes)}"
    orphans = f"{one.orphans:,} ({_megabytes(one.orphan_bytes)})" if one.orphans else "0"
    cells = [one.dataset, f"{one.snapshots:,}", opened, stored, size, f"{one.merged:,}", orphans]
    return [*cells, f"{one.reads}, {one.repeated}", f"{one.published:,}"]


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"

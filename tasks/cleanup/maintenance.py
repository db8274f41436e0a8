"""Keep the lake small and fast: take small files together, remove orphans, and prove that no read changed."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import pyarrow as pa

from blocks.common.errors import Corrupt, TerminalError
from blocks.lake.base import BUCKET_COLUMN, Footprint, Lake
from tasks.cleanup.rules.maintenance.maintenance import (
    Measured,
    Tended,
    bucket_limit,
    datasets_of,
    sampled_reads,
)
from tasks.shared.records import Maintained
from tasks.shared.rules.model.namespaces import namespace_of
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.rows.content import ContentDigest, has_digest


def data_sets(spec: ModelSpec, there: Sequence[str]) -> Sequence[str]:
    """Return which of the lake's data sets a model reads or writes."""
    own = [spec.own_dataset(kind) for kind in ("predictions", "inference", "watch")]
    return datasets_of(spec.data, there, own if namespace_of(spec.name) else ())


def settled(done: Sequence[Tended], *, dry_run: bool) -> Maintained:
    """Return what was done in all; `Corrupt` when a data set is not in order, with what each of them says."""
    if problems := [one.problem for one in done if one.problem]:
        raise Corrupt(f"{len(problems)} of {len(done)} data sets are not in order: {' '.join(problems)}")
    return Maintained(
        datasets=tuple(one.dataset for one in done),
        merged=sum(one.merged for one in done),
        orphans=sum(one.orphans for one in done),
        bytes_removed=sum(one.orphan_bytes for one in done),
        reads=sum(one.reads for one in done),
        repeated=sum(one.repeated for one in done),
        dry_run=dry_run,
    )


def tend(lake: Lake, dataset: str, *, now: datetime, before: datetime, dry_run: bool) -> Tended:
    """Compact one data set and collect its orphans; what cannot be mended by another try is told as its `problem`.

    A sample of reads is fixed and digested first, which verifies the checksums of their files. When anything was
    written or removed they are repeated, and have to return the same.
    """
    try:
        found = lake.footprint(dataset)
        snapshots = [snapshot.id for snapshot in lake.as_of(dataset).snapshots]
        reads = {moment: read_digest(lake, dataset, moment) for moment in sampled_reads(snapshots)}
        merged = lake.compact(dataset, at=now, dry_run=dry_run)
        removed = lake.collect(dataset, before=before, dry_run=dry_run)
        changed = not dry_run and bool(merged.files or removed.files)
        if changed:
            refuse_changed(lake, dataset, reads)
        left = lake.footprint(dataset)
    except TerminalError as problem:
        return Tended(dataset, problem=str(problem))
    return Tended(
        dataset=dataset,
        snapshots=len(snapshots),
        before=_measured(found),
        after=_measured(left),
        merged=merged.files,
        orphans=removed.files,
        orphan_bytes=removed.bytes,
        reads=len(reads),
        repeated=len(reads) if changed else 0,
    )


def read_digest(lake: Lake, dataset: str, moment: str) -> str:
    """Return a digest of what a read as of a snapshot returns, and of its manifests; of many rows, of a sample."""
    read = lake.as_of(dataset, moment)
    names = [name for name, _ in read.schema]
    below = bucket_limit(read.rows) if BUCKET_COLUMN in names else None
    rows, digest = lake.scan(read, below_bucket=below), ContentDigest()
    known = [field.name for field in rows.schema if has_digest(field.type)]
    for batch in rows:
        digest.update(pa.Table.from_batches([batch.select(known)]))
    return f"{read.digest} {read.rows} {digest.hexdigest()}"


def refuse_changed(lake: Lake, dataset: str, reads: Mapping[str, str]) -> None:
    """Repeat reads, and refuse one that does not return what it returned before: `Corrupt`."""
    for moment, digest in reads.items():
        if read_digest(lake, dataset, moment) != digest:
            raise Corrupt(
                f"{dataset}: the read as of {moment} no longer returns the rows that it did. Stop the writers, keep "
                "the lake as it is, and restore the data set from a copy of before this run."
            )


def _measured(found: Footprint) -> Measured:
    return Measured(found.stored.files, found.stored.bytes, found.opened.files)

"""Keep the lake small and fast: take small files together, remove orphans, and prove that no read changed."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import pyarrow as pa

from blocks.common.errors import Corrupt, TerminalError
from blocks.lake.base import BUCKET_COLUMN, Lake, StorageUse
from tasks.cleanup.rules.maintenance.maintenance import (
    DatasetMaintenance,
    StorageStats,
    digest_bucket_limit,
    model_dataset_names,
    sampled_reads,
)
from tasks.shared.records import MaintenanceResult
from tasks.shared.rules.model.namespaces import namespace_part
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.rows.content import ContentDigest, has_digest


def model_datasets(spec: ModelSpec, there: Sequence[str]) -> Sequence[str]:
    """Return which of the lake's data sets a model reads or writes."""
    own = [spec.own_dataset(kind) for kind in ("predictions", "inference", "watch")]
    return model_dataset_names(spec.data, there, own if namespace_part(spec.name) else ())


def maintenance_result(done: Sequence[DatasetMaintenance], *, dry_run: bool) -> MaintenanceResult:
    """Return what was done in all; `Corrupt` when a data set is not in order, with what each of them says."""
    if problems := [one.problem for one in done if one.problem]:
        raise Corrupt(f"{len(problems)} of {len(done)} data sets are not in order: {' '.join(problems)}")
    return MaintenanceResult(
        datasets=tuple(one.dataset for one in done),
        files_merged=sum(one.merged for one in done),
        orphan_files=sum(one.orphans for one in done),
        bytes_removed=sum(one.orphan_bytes for one in done),
        reads_verified=sum(one.reads for one in done),
        reads_reverified=sum(one.repeated for one in done),
        dry_run=dry_run,
    )


def maintain_dataset(
    lake: Lake, dataset: str, *, now: datetime, removable_before: datetime, dry_run: bool
) -> DatasetMaintenance:
    """Compact one data set and collect its orphans; what cannot be mended by another try is told as its `problem`.

    A sample of reads is fixed and digested first, which verifies the checksums of their files. When anything was
    written or removed they are repeated, and have to return the same.
    """
    try:
        footprint_before = lake.storage_use(dataset)
        snapshots = [snapshot.id for snapshot in lake.as_of(dataset).snapshots]
        reads = {moment: read_digest(lake, dataset, moment) for moment in sampled_reads(snapshots)}
        merged = lake.compact(dataset, at=now, dry_run=dry_run)
        removed = lake.collect_orphans(dataset, before=removable_before, dry_run=dry_run)
        changed = not dry_run and bool(merged.files or removed.files)
        if changed:
            verify_reads_unchanged(lake, dataset, reads)
        footprint_after = lake.storage_use(dataset)
    except TerminalError as problem:
        return DatasetMaintenance(dataset, problem=str(problem))
    return DatasetMaintenance(
        dataset=dataset,
        snapshots=len(snapshots),
        before=_storage_stats(footprint_before),
        after=_storage_stats(footprint_after),
        merged=merged.files,
        orphans=removed.files,
        orphan_bytes=removed.size_bytes,
        reads=len(reads),
        repeated=len(reads) if changed else 0,
    )


def read_digest(lake: Lake, dataset: str, moment: str) -> str:
    """Return a digest of what a read as of a snapshot returns, and of its manifests; of many rows, of a sample."""
    read = lake.as_of(dataset, moment)
    names = [name for name, _ in read.schema]
    below = digest_bucket_limit(read.rows) if BUCKET_COLUMN in names else None
    rows, digest = lake.scan(read, below_bucket=below), ContentDigest()
    known = [field.name for field in rows.schema if has_digest(field.type)]
    for batch in rows:
        digest.update(pa.Table.from_batches([batch.select(known)]))
    return f"{read.digest} {read.rows} {digest.hexdigest()}"


def verify_reads_unchanged(lake: Lake, dataset: str, reads: Mapping[str, str]) -> None:
    """Repeat reads, and refuse one that does not return what it returned before: `Corrupt`."""
    for moment, digest in reads.items():
        if read_digest(lake, dataset, moment) != digest:
            raise Corrupt(
                f"{dataset}: the read as of {moment} no longer returns the rows that it did. Stop the writers, keep "
                "the lake as it is, and restore the data set from a copy of before this run."
            )


def _storage_stats(found: StorageUse) -> StorageStats:
    return StorageStats(found.stored.files, found.stored.size_bytes, found.opened.files)

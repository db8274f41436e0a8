"""Maintenance of the lake: merge small files, remove orphaned files, and verify that reads did not change."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import pyarrow as pa

from blocks.common.errors import Corrupt, TerminalError
from blocks.lake.base import BUCKET_COLUMN, Lake, StorageUse
from tasks.cleanup.records import MaintenanceResult
from tasks.cleanup.rules.maintenance import (
    DatasetMaintenance,
    StorageStats,
    digest_bucket_limit,
    model_dataset_names,
    sampled_reads,
)
from tasks.shared.rules.model.namespaces import namespace_part
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.rows.content import ContentDigest, has_digest


def model_datasets(spec: ModelSpec, existing: Sequence[str]) -> Sequence[str]:
    """Return the existing data sets that a model reads or writes."""
    own = [spec.own_dataset(kind) for kind in ("predictions", "inference", "monitoring")]
    return model_dataset_names(spec.data, existing, own if namespace_part(spec.name) else ())


def maintenance_result(done: Sequence[DatasetMaintenance], *, dry_run: bool) -> MaintenanceResult:
    """Return the totals. Raises `Corrupt` with every problem when a data set has one."""
    if problems := [one.problem for one in done if one.problem]:
        raise Corrupt(f"{len(problems)} of {len(done)} data sets have a problem: {' '.join(problems)}")
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
    """Compact one data set and remove its orphaned files. A problem that a retry cannot solve is returned as `problem`.

    A sample of reads is digested first, which verifies the checksums of their files. When a file was written or
    removed, the reads are repeated and must return the same rows.
    """
    try:
        footprint_before = lake.storage_use(dataset)
        snapshots = [snapshot.id for snapshot in lake.as_of(dataset).snapshots]
        reads = {moment: read_digest(lake, dataset, moment) for moment in sampled_reads(snapshots)}
        merged = lake.compact(dataset, dry_run=dry_run)
        removed = lake.collect_orphans(dataset, before=removable_before, dry_run=dry_run)
        changed = not dry_run and bool(merged.files or removed.files)
        if changed:
            verify_reads_unchanged(lake, dataset, reads)
        published = lake.publish(dataset, dry_run=dry_run)
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
        published=published.commits,
        not_published=published.problem,
    )


def read_digest(lake: Lake, dataset: str, moment: str) -> str:
    """Return a digest of the manifests and rows of a read as of a snapshot. Of many rows, a sample is digested."""
    read = lake.as_of(dataset, moment)
    names = [name for name, _ in read.schema]
    below = digest_bucket_limit(read.rows) if BUCKET_COLUMN in names else None
    rows, digest = lake.scan(read, below_bucket=below), ContentDigest()
    known = [field.name for field in rows.schema if has_digest(field.type)]
    for batch in rows:
        digest.update(pa.Table.from_batches([batch.select(known)]))
    return f"{read.digest} {read.rows} {digest.hexdigest()}"


def verify_reads_unchanged(lake: Lake, dataset: str, reads: Mapping[str, str]) -> None:
    """Repeat reads. Raises `Corrupt` when a read returns other rows than before."""
    for moment, digest in reads.items():
        if read_digest(lake, dataset, moment) != digest:
            raise Corrupt(
                f"{dataset}: the read as of {moment} returns other rows than before. Stop the writers, do not "
                "change the lake, and restore the data set from a backup of before this run."
            )


def _storage_stats(use: StorageUse) -> StorageStats:
    return StorageStats(use.stored.files, use.stored.size_bytes, use.opened.files)

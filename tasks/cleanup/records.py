"""The results of maintenance and garbage collection that their tasks pass on."""

from tasks.cleanup.rules.cloud import CloudAction
from tasks.shared.records import TaskRecord


class MaintenanceResult(TaskRecord):
    """The result of a maintenance run or dry run: merged files, removed orphans, verified reads.

    `reads_reverified` counts the reads that were repeated after a change and returned the same rows.
    """

    datasets: tuple[str, ...]
    files_merged: int
    orphan_files: int
    bytes_removed: int
    reads_verified: int
    reads_reverified: int
    dry_run: bool


class PlannedRemoval(TaskRecord):
    """One artifact that garbage collection removes: its key, its description, and its size in bytes."""

    key: str
    description: str
    bytes: int


class GarbageCollectionPlan(TaskRecord):
    """The plan of a garbage collection: removals (dependents first), kept artifacts by reason, and cloud actions."""

    remove: tuple[PlannedRemoval, ...]
    kept_counts: dict[str, int]
    cloud_actions: tuple[CloudAction, ...] = ()

    @property
    def bytes(self) -> int:
        """The bytes that the removals free."""
        return sum(each.bytes for each in self.remove)


class GarbageCollectionResult(TaskRecord):
    """The result of a garbage collection. `skipped` artifacts were in use by then, or gone."""

    removed: int
    bytes: int
    skipped: int

"""Maintain the lake: merge small files, remove orphaned files, and verify that reads did not change."""

from prefect import flow

from flows.authorization import authorize_run
from flows.exclusive import one_at_a_time
from flows.options import FLOW_OPTIONS
from flows.parameters import EnvironmentName, Hours, ModelOrAll, OrderId
from tasks.cleanup.records import MaintenanceResult
from tasks.cleanup.tasks import maintain_datasets


@flow(name="maintain_lake", flow_run_name="lake of {environment}", **FLOW_OPTIONS)
def maintain_lake(
    model: ModelOrAll = "",
    dry_run: bool = False,
    min_orphan_age_hours: Hours = 24,
    environment: EnvironmentName = "local",
    order: OrderId = "",
) -> MaintenanceResult:
    """Merge small files, remove orphaned files, and repeat a sample of reads to verify that none changed.

    It may run at the same time as ingests and trainings: readers keep reading the same rows, and a writer either
    commits completely or is told to retry.

    Args:
        model: The model whose data sets are maintained: a folder below models/. Empty means every data set of the lake.
        dry_run: Report what would be done, without writing or removing anything.
        min_orphan_age_hours: Remove orphaned files that were not written to for this many hours. Keep it longer than the longest run that reads or writes.
        environment: The set of adapters to run on: a file in deployments/environments/.
        order: The signed order of whoever starts the run, made by the gateway (docs/actions.md). Empty: nobody proved a name.
    """  # noqa: E501  (the form takes one line a parameter)
    if not dry_run:
        authorize_run("maintain_lake", model, environment, order)
    with one_at_a_time(f"maintain-{environment}"):
        return maintain_datasets(model, dry_run, min_orphan_age_hours, environment)

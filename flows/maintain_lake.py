"""Look after the lake: fewer and larger files, no orphans, and every read as it was."""

from prefect import flow

from flows.exclusive import one_at_a_time
from flows.parameters import EnvironmentName, Hours, ModelOrAll
from flows.run_log import send_run_log
from tasks.cleanup.tasks import maintain_datasets
from tasks.shared.records import MaintenanceResult


@flow(
    name="maintain_lake",
    persist_result=True,
    result_serializer="json",
    flow_run_name="lake of {environment}",
    on_running=[send_run_log],
)
def maintain_lake(
    model: ModelOrAll = "",
    dry_run: bool = False,
    older_than_hours: Hours = 24,
    environment: EnvironmentName = "local",
) -> MaintenanceResult:
    """Take small files together, remove those that nothing names, and repeat a sample of reads to see that none changed.

    It may run beside ingests and trainings: whoever reads keeps reading the same rows, whoever writes either
    lands as a whole or is told to try again.

    Args:
        model: The model whose data sets are looked after: a folder below models/. Empty is every data set of the lake.
        dry_run: Only say what would be done. Nothing is written or removed.
        older_than_hours: Files that nothing names are removed when nobody wrote to them for so many hours. Keep it above the longest run that reads or writes.
        environment: The set of adapters to run on: a file in deployments/environments/.
    """  # noqa: E501  (the form takes one line a parameter)
    with one_at_a_time(f"maintain-{environment}"):
        return maintain_datasets(model, dry_run, older_than_hours, environment)

"""One retraining of a model at a time, however it was started."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists


@contextmanager
def one_at_a_time(work: str) -> Iterator[None]:
    """Wait until no other flow run does `work` ("retrain-churn"), and hold it for the time of the block.

    A run that was killed loses its hold after a minute. A suspended run holds nothing.
    """
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):  # another first run was quicker
        client.upsert_global_concurrency_limit_by_name(work, limit=1)
    with concurrency(work, occupy=1, lease_duration=60, strict=True):
        yield

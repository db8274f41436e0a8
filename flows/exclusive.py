"""A lock that lets one flow run at a time do some work, for example retrain a model."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists


@contextmanager
def one_at_a_time(work: str) -> Iterator[None]:
    """Wait until no other flow run holds the lock `work` (for example "retrain-churn"), then hold it inside the block.

    A killed run loses the lock after a minute. A suspended run does not hold it.
    """
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):  # another run has just created it
        client.upsert_global_concurrency_limit_by_name(work, limit=1)
    with concurrency(work, occupy=1, lease_duration=60, strict=True):
        yield

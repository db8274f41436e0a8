"""Where trials run side by side: threads of the flow's own process, or the workers of a Dask cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from blocks.common.errors import Rejected, Unavailable
from blocks.environment import open_environment

if TYPE_CHECKING:
    from prefect_dask.task_runners import DaskTaskRunner


@contextmanager
def trial_task_runner(environment: str, parallel: int) -> Iterator[TaskRunner[Any]]:
    """Give the started task runner that the environment names, for `parallel` tasks at once; stop it in the end.

    The environment is a parameter of a flow run, and Prefect starts a flow's own task runner before it knows the
    parameters. So the tasks are handed to this one: `runner.submit(task, {"name": value})`.

    Raises:
        Rejected: the environment wants Dask, which is not installed.
        Unavailable: there is no Dask scheduler at the environment's address.
    """
    env = open_environment(environment)
    if env.task_runner == "thread":
        threads: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=parallel)
        with threads:
            yield threads
        return
    with _dask_runner(env.task_runner_address, parallel) as workers:
        try:
            workers.client.wait_for_workers(1, timeout=60)
        except (OSError, TimeoutError) as cause:
            place = env.task_runner_address or "a cluster of this machine"
            raise Unavailable(f"Dask at {place} does not answer: {cause}. Start its scheduler and workers.") from cause
        yield workers


def _dask_runner(address: str, parallel: int) -> "DaskTaskRunner":
    """Return a runner on the scheduler at `address`, or, without one, on a cluster of this machine for this run."""
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError as cause:
        raise Rejected("prefect-dask is not installed. Install it: make setup-engines") from cause
    if address:
        return DaskTaskRunner(address=address)
    loopback = {"host": "127.0.0.1", "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs={"n_workers": parallel, "threads_per_worker": 1, **loopback})

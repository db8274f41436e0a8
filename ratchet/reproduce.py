"""Train a promoted version again from its evidence pack, by the deployment `reproduce/reproduce`."""

from deployments.flow_runs import end_of_run, is_ended, start_run, wait_for_run
from local.stack import use_running_stack


def reproduced(model: str, version: str, environment: str, *, fresh: bool) -> tuple[str, bool]:
    """Start the flow, wait for its end, and return the verdict and whether the same model came of it.

    Raises:
        StackError: no stack runs.
        PortError: the flow cannot be started, or takes more than an hour.
    """
    use_running_stack()
    given = {"model": model, "version": version, "environment": environment, "fresh_venv": fresh}
    run = wait_for_run(start_run("reproduce/reproduce", given), until=is_ended, seconds=3600)
    return end_of_run(run), run.state is not None and run.state.is_completed()

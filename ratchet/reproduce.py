"""A promoted version, trained again from its evidence pack by the deployment `reproduce/reproduce`."""

from deployments.flow_runs import is_ended, start_run, wait_for_run
from local.stack import use_running_stack


def reproduced(model: str, version: str, environment: str, *, fresh: bool) -> tuple[str, bool]:
    """Start the flow, wait for its end, and return the verdict and whether the same model came of it.

    Raises:
        StackError: no stack runs.
        PortError: the flow cannot be started, or takes more than an hour.
    """
    use_running_stack()
    given = {"model": model, "version": version, "environment": environment, "fresh_environment": fresh}
    state = wait_for_run(start_run("reproduce/reproduce", given), until=is_ended, seconds=3600).state
    return (f"{state.name}: {state.message}", state.is_completed()) if state else ("the run has no state", False)

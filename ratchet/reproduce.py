"""A promoted version, trained again from its evidence pack by the deployment `reproduce/reproduce`."""

from deployments.runs import begin, ended, follow
from local.stack import use


def reproduced(model: str, version: str, environment: str, *, fresh: bool) -> tuple[str, bool]:
    """Start the flow, wait for its end, and return the verdict and whether the same model came of it.

    Raises:
        StackError: no stack runs.
        PortError: the flow cannot be started, or takes more than an hour.
    """
    use()
    given = {"model": model, "version": version, "environment": environment, "fresh_environment": fresh}
    state = follow(begin("reproduce/reproduce", given), until=ended, seconds=3600).state
    return (f"{state.name}: {state.message}", state.is_completed()) if state else ("the run has no state", False)

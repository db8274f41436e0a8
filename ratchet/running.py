"""The running stack, as commands and notebooks get hold of it."""

from blocks.environment import Environment, open_environment
from local.stack import use_running_stack


def running(environment: str = "local") -> Environment:
    """Point this process at the running stack, and return an environment of it.

    Raises:
        StackError: no stack runs.
        NotFound: the environment is not registered.
    """
    use_running_stack()
    return open_environment(environment)

"""The environment of the programs that a task starts for a library: without the credentials of Prefect's API."""

import os

PREFECT_CREDENTIALS = frozenset({"PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"})


def environment_without_credentials() -> dict[str, str]:
    """Return this process's variables but for Prefect's credentials: a library that reads data has no use for them."""
    return {name: value for name, value in os.environ.items() if name not in PREFECT_CREDENTIALS}

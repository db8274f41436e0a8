"""Names of jobs on SageMaker: each is taken once and for ever, so a further attempt bears a number."""

from runtime.digests import text_digest

MAX_NAME_LENGTH = 63


def attempt_name(name: str, number: int) -> str:
    """Return the name of an attempt on SageMaker: the job's own, then with a number; never above 63 characters."""
    if number == 1:
        return name
    ending = f"-{number}"
    if len(name) + len(ending) <= MAX_NAME_LENGTH:
        return name + ending
    ending = f"-{text_digest(name)[:8]}{ending}"
    return name[: MAX_NAME_LENGTH - len(ending)].rstrip("-") + ending

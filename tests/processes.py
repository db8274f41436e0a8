"""Which processes run, asked while they may end: one that has ended but was not waited for does not run."""

import psutil


def runs(pid: int) -> bool:
    """Return whether the process of this number runs."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def children(parent: psutil.Process) -> set[int]:
    """Return the numbers of the processes that `parent` started and that run."""
    return {child.pid for child in parent.children() if runs(child.pid)}

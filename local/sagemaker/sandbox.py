"""How a container's process gets its /opt/ml: a mount namespace of its own, where the kernel allows one.

The namespace has its own process numbers, too: the program is process 1, as in a container, and whatever it
started ends with it. Where there is none, the program is told of its folder by `SAGEMAKER_BASE_DIR` and `SM_*`
variables, which our container and AWS's training toolkit honour.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import cache

import psutil

_MOUNT_SCRIPT = """
set -e
if [ ! -d /opt/ml ]; then
  mkdir -p "$0.opt"; mount --rbind /opt "$0.opt"; mount -t tmpfs none /opt
  for each in "$0.opt"/*; do
    if [ -d "$each" ]; then mkdir "/opt/${each##*/}"; mount --rbind "$each" "/opt/${each##*/}"; fi
  done
  mkdir /opt/ml
fi
mount --bind "$0" /opt/ml
cd /opt/ml
exec "$@"
"""
"""$0 is the folder to be seen as /opt/ml; what else lies in /opt stays in sight: Python may live there."""


def _unshare() -> list[str]:
    identity = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *identity, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


@cache
def namespaces_allowed() -> bool:
    """Whether this kernel lets us make a mount namespace."""
    if not shutil.which("unshare"):
        return False
    trial = [*_unshare(), "sh", "-c", "mount -t tmpfs none /opt"]
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


def in_mount_namespace(command: Sequence[str], folder: str) -> list[str]:
    """Return the command that runs `command` where `folder` is /opt/ml."""
    return [*die_with_parent(()), *_unshare(), "sh", "-c", _MOUNT_SCRIPT, folder, *command]


def die_with_parent(command: Sequence[str]) -> list[str]:
    """Return the command that ends when the thread that started it is gone, however that went (Linux)."""
    return [*(("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()), *command]


def main_process(started: int) -> int | None:
    """Return the number of the container's first process, as this machine counts, or None when it is gone."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(started)
        if process.name() != "unshare":
            return started
        children = process.children()
        return children[0].pid if children else None
    return None


def send_signal(started: int, number: signal.Signals) -> None:
    """Send a signal to the container's first process alone, as `docker stop` does."""
    target = main_process(started)
    if target is not None:
        with suppress(ProcessLookupError):
            os.kill(target, number)


def kill_all(started: int) -> None:
    """Kill everything that the container runs."""
    send_signal(started, signal.SIGKILL)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(started, signal.SIGKILL)

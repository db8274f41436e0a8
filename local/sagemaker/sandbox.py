"""The /opt/ml of a container's process: a separate mount namespace, if the kernel allows one.

The namespace also has its own process ids: the program is process 1, as in a container, and everything it started ends
with it. Without a namespace the program gets its folder in `SAGEMAKER_BASE_DIR` and `SM_*` variables, which the
project's container and AWS's training toolkit use.
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
"""$0 is the folder to mount at /opt/ml; the rest of /opt stays visible, as Python may be installed there."""


def _unshare() -> list[str]:
    identity = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *identity, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


@cache
def namespaces_allowed() -> bool:
    """Whether this kernel allows the creation of a mount namespace."""
    if not shutil.which("unshare"):
        return False
    test_command = [*_unshare(), "sh", "-c", "mount -t tmpfs none /opt"]
    return subprocess.run(test_command, capture_output=True, check=False).returncode == 0


def in_mount_namespace(command: Sequence[str], folder: str) -> list[str]:
    """Return the command that runs `command` with `folder` mounted at /opt/ml."""
    return [*die_with_parent(()), *_unshare(), "sh", "-c", _MOUNT_SCRIPT, folder, *command]


def die_with_parent(command: Sequence[str]) -> list[str]:
    """Return the command that is killed when the thread that started it ends for any reason (Linux)."""
    return [*(("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()), *command]


def main_process(started: int) -> int | None:
    """Return the pid of the container's first process on this machine, or None when it has ended."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(started)
        if process.name() != "unshare":
            return started
        children = process.children()
        return children[0].pid if children else None
    return None


def send_signal(started: int, number: signal.Signals) -> None:
    """Send a signal to the container's first process only, as `docker stop` does."""
    target = main_process(started)
    if target is not None:
        with suppress(ProcessLookupError):
            os.kill(target, number)


def kill_all(started: int) -> None:
    """Kill all processes of the container."""
    send_signal(started, signal.SIGKILL)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(started, signal.SIGKILL)

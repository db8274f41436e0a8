"""Containers: processes with the view of a SageMaker container, whose output goes to CloudWatch Logs.

A container gets its /opt/ml in a separate mount namespace, if the kernel allows one. The namespace also has its own
process ids: the program is process 1, as in a container, and everything it started ends with it. Without a namespace
the program gets its folder in `SAGEMAKER_BASE_DIR` and `SM_*` variables, which the project's container and AWS's
training toolkit use.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

from local.sagemaker.aws import AwsClients
from local.sagemaker.errors import ResourceFailure
from local.sagemaker.settings import Settings

GRACE_SECONDS = 120.0
"""Seconds between SIGTERM and SIGKILL, as on SageMaker."""
FLUSH_SECONDS = 0.1
_START_THREAD = ThreadPoolExecutor(1, "containers")
"""The thread that starts every container. It lives as long as this process, and the containers end with it."""


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


class Container:
    """A running container. `folder` is its /opt/ml."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", folder: Path, aws: AwsClients, group: str, stream: str
    ) -> None:
        self.process, self.folder = process, folder
        self.lines: list[str] = []
        self._aws, self._group, self._stream, self._sent = aws, group, stream, 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._sender = threading.Thread(target=self._send, daemon=True)
        aws.open_log(group, stream)
        self._reader.start()
        self._sender.start()

    @property
    def alive(self) -> bool:
        """Whether the container's first process runs."""
        return self.process.poll() is None

    def stop(self, grace_seconds: float) -> None:
        """Terminate the first process, kill everything after the grace period, and wait until the log is sent."""
        send_signal(self.process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(grace_seconds)
        self.close()

    def close(self) -> None:
        """Kill what is left and wait until the last line is in CloudWatch."""
        kill_all(self.process.pid)
        self.process.wait()
        self._reader.join(timeout=5)
        self._sender.join(timeout=5)
        if self.process.stdout and not self._reader.is_alive():
            self.process.stdout.close()

    def last_lines(self, lines: int = 5) -> str:
        """Return the last lines of the output."""
        return "\n".join(self.lines[-lines:])

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append(line.decode(errors="replace").rstrip("\r\n"))

    def _send(self) -> None:
        while self._reader.is_alive():
            self._reader.join(FLUSH_SECONDS)
            self._flush()
        self._flush()

    def _flush(self) -> None:
        unsent = self.lines[self._sent :]
        if unsent:
            self._sent += len(unsent)
            self._aws.log(self._group, self._stream, unsent)


class ContainerRuntime:
    """Starts containers. Each has a folder inside the state folder, which is removed after its end."""

    def __init__(self, settings: Settings, aws: AwsClients) -> None:
        self.settings, self._aws = settings, aws
        allowed = namespaces_allowed() if settings.namespaces is None else settings.namespaces
        self.namespaces = allowed
        self._running: set[Container] = set()

    def new_folder(self, name: str) -> Path:
        """Return a new folder for a container's /opt/ml."""
        self.settings.state.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.settings.state)) / "ml"

    def start(
        self,
        image: str,
        command: str,
        folder: Path,
        variables: Mapping[str, str],
        log: tuple[str, str],
        entrypoint: Sequence[str] = (),
    ) -> Container:
        """Run `train` or `serve` of an image, or the given entry point, with `folder` as /opt/ml.

        Raises:
            ResourceFailure: there is no such image, or it has no such command.
        """
        known = self.settings.image(image)
        words = list(entrypoint or (known.train if command == "train" else known.serve))
        if not words:
            raise ResourceFailure(f"ClientError: image {image} has no command {command!r}")
        whole = in_mount_namespace(words, str(folder)) if self.namespaces else die_with_parent(words)
        environment = self._environment(folder, words[0]) | known.environment | dict(variables)
        try:
            process = _START_THREAD.submit(_spawn, whole, folder, environment).result()
        except OSError as cause:
            raise ResourceFailure(f"AlgorithmError: CannotStartContainerError. {words[0]}: {cause}") from cause
        container = Container(process, folder, self._aws, *log)
        self._running.add(container)
        return container

    def stop_container(self, container: Container, grace_seconds: float = 0.0) -> None:
        """Stop a container."""
        container.stop(grace_seconds) if grace_seconds else container.close()
        self._running.discard(container)

    def stop_all(self) -> None:
        """Stop all running containers."""
        for container in list(self._running):
            self.stop_container(container)

    def _environment(self, folder: Path, program: str) -> dict[str, str]:
        """Return the variables that every container gets: addresses and credentials of AWS, and paths."""
        home = folder.parent / "home"
        home.mkdir(exist_ok=True)
        path = os.pathsep.join([str(Path(program).parent), "/usr/local/bin", os.defpath])
        own = {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
        own |= {"AWS_REGION": self.settings.region, "AWS_DEFAULT_REGION": self.settings.region}
        own |= {"AWS_ENDPOINT_URL": self._aws.url, "MLFLOW_S3_ENDPOINT_URL": self._aws.url}
        own |= {"AWS_ACCESS_KEY_ID": "role", "AWS_SECRET_ACCESS_KEY": "role"}
        base = {} if self.namespaces else {"SAGEMAKER_BASE_DIR": str(folder), "SM_MODEL_DIR": str(folder / "model")}
        return own | base


def _spawn(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        list(command),
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


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


def send_signal(started: int, number: signal.Signals) -> None:
    """Send a signal to the container's first process only, as `docker stop` does."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(started)
        for target in process.children()[:1] if process.name() == "unshare" else [process]:
            target.send_signal(number)


def kill_all(started: int) -> None:
    """Kill all processes of the container."""
    send_signal(started, signal.SIGKILL)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(started, signal.SIGKILL)


def timestamp_ms() -> int:
    """Return the time in milliseconds, which is part of the names of log streams and instances."""
    return time.time_ns() // 1_000_000

"""Isolates, finds, measures and ends the processes of one job on this machine."""

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from blocks.common.errors import Rejected

JOB_FOLDER_VARIABLE = "SAGEMAKER_BASE_DIR"
"""Variable in the environment of a job's processes; its value is the job's folder."""


def is_alive(pid: int, created: float) -> bool:
    """Return whether the process still runs; `created` distinguishes it from a later process with the same pid."""
    try:
        process = psutil.Process(pid)
        return process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def creation_time(pid: int) -> float:
    """Return when the process started (seconds since 1970, as psutil counts), or 0.0 if it has ended."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def processes_of_job(folder: Path) -> list[psutil.Process]:
    """Return the running processes of the job in `folder`, including children that left its session."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(JOB_FOLDER_VARIABLE) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
    return processes


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process and all its descendants, in MB of 2**20 bytes; 0 if it has ended."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total / 2**20


def end_processes(folder: Path, grace_seconds: float) -> None:
    """End every process of the job in `folder`: SIGTERM first, SIGKILL after `grace_seconds`, until none is left."""
    for process in processes_of_job(folder):
        with contextlib.suppress(psutil.Error):
            process.terminate()
    deadline = time.monotonic() + grace_seconds
    while processes_of_job(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    while running := processes_of_job(folder):  # a process may start another one before it is killed
        for process in running:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(running, timeout=1)


RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
SYSTEM_FILES = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "passwd", "group", "nsswitch.conf", "ssl",
                "ca-certificates", "alternatives", "mime.types", "fonts")  # fmt: skip
"""What a program needs of `/etc`: no secrets, and nothing of this project."""
FIRST_FREE_PORT, PORT_SHIFT = 1024, 20_000


def sandbox_command(job_folder: Path, python: str, channels: Iterable[Path], *, network: bool) -> list[str]:
    """Return the command of bubblewrap that runs a program with nothing but its job.

    It sees the system's programs, its interpreter and its inputs, all read-only, and may write to its folders of
    model, output, code and temporary files. Other processes, the network and every other file are not there.

    Raises:
        Rejected: bubblewrap is not installed.
    """
    if (program := shutil.which("bwrap")) is None:
        raise Rejected('isolation = "bubblewrap" needs the program bwrap: apt-get install bubblewrap')
    command = [program, "--unshare-all", "--die-with-parent", "--cap-drop", "ALL"]
    command += ["--share-net"] if network else []
    command += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108 - inside, and empty
    for folder in map(Path, SYSTEM_FOLDERS):
        command += ["--symlink", str(folder.readlink()), str(folder)] if folder.is_symlink() else (
            ["--ro-bind-try", str(folder), str(folder)]
        )  # fmt: skip
    files = (*SYSTEM_FILES, *(("resolv.conf", "hosts") if network else ()))
    for file in files:
        command += ["--ro-bind-try", f"/etc/{file}", f"/etc/{file}"]
    for place in (*_interpreter_folders(python), RUNTIME, *channels, job_folder):
        for path in dict.fromkeys((place, place.resolve())):
            command += ["--ro-bind", str(place.resolve()), str(path)]
    for name in ("model", "output/data", "input/data/code", "tmp"):
        command += ["--bind", str(job_folder / name), str(job_folder / name)]
    bridge = job_folder / "bridge"
    alone = ["--ro-bind", str(bridge), "/run/ratchet", "--ro-bind", str(bridge / "hosts"), "/etc/hosts"]
    return command if network else [*command, *alone]


def _interpreter_folders(python: str) -> Iterator[Path]:
    """Yield the folders of an interpreter and its libraries, without those of the system."""
    found = f"{sys.prefix}\n{sys.base_prefix}"
    if python != sys.executable:
        show = "import sys; print(sys.prefix); print(sys.base_prefix)"
        found = subprocess.run([python, "-I", "-c", show], capture_output=True, text=True, check=True).stdout
    folders = {Path(python).parent.parent, Path(python).resolve().parent.parent, *map(Path, found.splitlines())}
    return (each for each in sorted(folders) if not str(each).startswith(SYSTEM_FOLDERS) and each != Path("/"))


def tracking_inside(url: str) -> tuple[str, tuple[str, int, int], str]:
    """Return how a sandbox without a network reaches a tracking server, and nothing else.

    Returns: the server's URL inside; its host, its port, and the port inside; and the content of `/etc/hosts`.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    inside = port if port >= FIRST_FREE_PORT else port + PORT_SHIFT
    name = "127.0.0.1" if _is_address(host) else host
    hosts = f"127.0.0.1 localhost {'' if name == '127.0.0.1' else name}\n"
    return parts._replace(netloc=f"{name}:{inside}").geturl(), (host, port, inside), hosts


def _is_address(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ip_address(host))
    return False


def first_strange_entry(folder: Path) -> str:
    """Return the first entry below a folder that is neither a file nor a folder, such as a link; "" without any.

    Who reads what a program left would follow its links, with rights that the program did not have.
    """
    entries = folder.rglob("*") if folder.is_dir() and not folder.is_symlink() else iter((folder,))
    strange = (each for each in entries if each.is_symlink() or not (each.is_file() or each.is_dir()))
    return next((str(each.relative_to(folder.parent)) for each in strange), "")

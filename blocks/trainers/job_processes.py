"""Isolates, finds, measures and ends the processes of one job on this machine."""

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
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
SYSTEM_FILES = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "passwd", "group", "nsswitch.conf",
                "ssl/certs", "ssl/cert.pem", "ssl/openssl.cnf", "ca-certificates", "alternatives", "mime.types",
                "fonts")  # fmt: skip
"""What a program needs of `/etc`: no secrets, and nothing of this project."""
KERNEL_SETTINGS = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi")
"""What root may write below `/proc` even without any capability, and in a user namespace: with
`sys/kernel/core_pattern` the kernel would run a program outside the sandbox."""
FIRST_FREE_PORT, PORT_SHIFT = 1024, 20_000
MAX_LINKS = 40
"""Links in a row that Linux follows."""


def sandbox_command(job_folder: Path, python: str, channels: Iterable[Path], *, network: bool) -> list[str]:
    """Return the command of bubblewrap that runs a program with nothing but its job.

    It sees the system's programs, its interpreter and its inputs, all read-only, and may write to its folders of
    model, output, code and temporary files. Other processes, the network and every other file are not there.

    Raises:
        Rejected: bubblewrap is not installed, or the interpreter's folder is no folder of its own.
    """
    if (program := shutil.which("bwrap")) is None:
        raise Rejected('isolation = "bubblewrap" needs the program bwrap: apt-get install bubblewrap')
    command = [program, "--unshare-all", "--unshare-user", "--die-with-parent", "--cap-drop", "ALL"]
    options = subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stdout
    command += ["--disable-userns"] if "--disable-userns" in options else []  # from bubblewrap 0.8 on
    command += ["--share-net"] if network else []
    command += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108 - inside, and empty
    for name in KERNEL_SETTINGS:
        command += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
    for folder in map(Path, SYSTEM_FOLDERS):
        command += ["--symlink", str(folder.readlink()), str(folder)] if folder.is_symlink() else (
            ["--ro-bind-try", str(folder), str(folder)]
        )  # fmt: skip
    files = (*SYSTEM_FILES, *(("resolv.conf", "hosts") if network else ()))
    for file in files:
        command += ["--ro-bind-try", f"/etc/{file}", f"/etc/{file}"]
    folders = _interpreter_folders(python)
    own = (Path(os.environ.get("HOME", "/")), job_folder)
    if broad := [each for each in folders if any(place.is_relative_to(each) for place in own)]:
        raise Rejected(f"the folder of {python} is {broad[0]}, which holds other files: use a virtual environment")
    for place in (*folders, RUNTIME, *channels, job_folder):
        for path in dict.fromkeys((place, place.resolve())):
            command += ["--ro-bind", str(place.resolve()), str(path)]
    command += _interpreter_links(python, [*map(Path, SYSTEM_FOLDERS), *folders])
    for name in ("model", "output/data", "input/data/code", "tmp"):
        command += ["--bind", str(job_folder / name), str(job_folder / name)]
    bridge = job_folder / "bridge"
    alone = ["--ro-bind", str(bridge), "/run/ratchet", "--ro-bind", str(bridge / "hosts"), "/etc/hosts"]
    return command if network else [*command, *alone]


def _interpreter_folders(python: str) -> list[Path]:
    """Return the folders of an interpreter and its libraries, without those of the system."""
    found = f"{sys.prefix}\n{sys.base_prefix}"
    if python != sys.executable:
        show = "import sys; print(sys.prefix); print(sys.base_prefix)"
        found = subprocess.run([python, "-I", "-c", show], capture_output=True, text=True, check=True).stdout
    folders = sorted(set(map(Path, found.splitlines())) - {Path("/")})
    return [each for each in folders if not any(each.is_relative_to(system) for system in SYSTEM_FOLDERS)]


def _interpreter_links(python: str, bound: Sequence[Path]) -> list[str]:
    """Return the options for an interpreter that lies, or that links lead to, outside of the bound folders."""
    options: list[str] = []
    path = Path(python)
    for _ in range(MAX_LINKS):
        target = Path(os.path.normpath(path.parent / path.readlink())) if path.is_symlink() else path
        if not any(path.is_relative_to(folder) for folder in bound):
            options += ["--ro-bind" if target == path else "--symlink", str(target), str(path)]
        if target == path:
            break
        path = target
    return options


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
    """Return the first entry below a folder that is no plain file or folder, and why; "" without any.

    Who reads what a program left would follow its links, with rights that the program did not have; a file with a
    setuid bit would run with the rights of its owner, and one with a second name could still be changed.
    """
    entries = folder.rglob("*") if folder.is_dir() and not folder.is_symlink() else iter((folder,))
    strange = ((each, problem) for each in entries if (problem := _strangeness(each)))
    return next((f"{each.relative_to(folder.parent)}, which {problem}" for each, problem in strange), "")


def _strangeness(path: Path) -> str:
    try:
        found = path.lstat()
    except OSError:
        return "cannot be read"
    if stat.S_ISDIR(found.st_mode):
        return ""
    if not stat.S_ISREG(found.st_mode):
        return "is neither a file nor a folder"
    if found.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX):
        return "has a setuid, setgid or sticky bit"
    return "has a second name (a hard link)" if found.st_nlink > 1 else ""

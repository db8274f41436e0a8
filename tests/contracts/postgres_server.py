"""A PostgreSQL server for tests: a cluster of its own in a folder of its own, on a free port, gone afterwards."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def server_binaries() -> Path | None:
    """Return the folder that holds `initdb` and `pg_ctl`, or None when there is none."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "pg_ctl").exists()), None)


@contextmanager
def running_server(binaries: Path) -> Iterator[str]:
    """Start a server and yield its URL up to the name of the database; stop and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="ratchet-pg-", dir="/tmp"))
    as_user = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to be run by root
        shutil.chown(folder, "nobody", "nogroup")
        as_user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    port = _free_port()

    def call(*command: str) -> None:
        run = [str(binaries / command[0]), *command[1:]]
        subprocess.run(run, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=60, **as_user)

    data = str(folder / "data")
    try:
        call("initdb", "-D", data, "-U", "ratchet", "-A", "trust", "-N", "-E", "UTF8")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        call("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://ratchet:secret-in-url@127.0.0.1:{port}"
        finally:
            call("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])

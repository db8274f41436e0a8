"""A separate scoring server for one preflight: without live traffic and without secrets of this process."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from blocks.common.errors import Rejected
from blocks.common.temporary_folders import temporary_folder
from blocks.endpoints.base import ProbeResult, Release
from blocks.endpoints.golden import difference

_LOG_TAIL_LINES = 20


@dataclass(frozen=True)
class ScoringServer:
    """A running server: its URL, the seconds until it was healthy, and its log file."""

    url: str
    load_seconds: float
    process: "subprocess.Popen[bytes]"
    log: Path

    def last_log_lines(self) -> tuple[str, ...]:
        """Return the last lines of the server's output."""
        return tuple(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:])


@contextmanager
def scoring_server(
    command: Sequence[str],
    model: Path,
    version: str,
    deadline: float,
    trusted_keys: Sequence[str] = (),
    digest: str = "",
) -> Iterator[ScoringServer]:
    """Start the server on a free port of 127.0.0.1, wait until `/ping` returns 200, and end it afterwards.

    Args:
        command: the program and its arguments; it follows SageMaker's container contract.
        model: the MLflow model folder.
        version: the version that the server reports.
        deadline: as `time.monotonic()`.
        trusted_keys: public keys; the server loads only models that one of them signed.
        digest: expected digest of the model; a server that reports another one is another program that took the port.

    Raises:
        Rejected: the server ended, or was not healthy by the deadline; the message has its last log lines.
    """
    with temporary_folder(None, "ratchet-preflight-") as scratch:
        begin = time.monotonic()
        server = _start_on_free_port(command, model, version, trusted_keys, digest, scratch, deadline)
        try:
            yield ScoringServer(server.url, time.monotonic() - begin, server.process, server.log)
        finally:
            _kill(server.process)


def _start_on_free_port(
    command: Sequence[str],
    model: Path,
    version: str,
    keys: Sequence[str],
    digest: str,
    scratch: Path,
    deadline: float,
) -> ScoringServer:
    """Start the server and wait until it is healthy; use a new port if another program took the first."""
    while True:
        port, log = _free_port(), scratch / "server.log"
        process = _start(command, _server_environment(model, version, port, str(scratch), keys), str(scratch), log)
        server = ScoringServer(f"http://127.0.0.1:{port}", 0.0, process, log)
        try:
            _wait_until_healthy(server, deadline, digest)
        except BaseException:
            _kill(process)
            if process.returncode == 1 and any("address already in use" in line for line in server.last_log_lines()):
                continue
            raise
        return server


def probe_server(server: ScoringServer, release: Release, timeout_seconds: float) -> ProbeResult:
    """Send the golden request to a server; compare its predictions and the digest that it reports."""
    headers = {"Content-Type": "application/json"}
    begin = time.monotonic()
    try:
        response = httpx.post(
            f"{server.url}/invocations",
            content=release.golden_example.request.encode(),
            headers=headers,
            timeout=timeout_seconds,
            trust_env=False,
        )
    except httpx.TransportError as cause:
        lines = "\n".join(server.last_log_lines())
        problem = f"the golden request got no response ({type(cause).__name__})"
        raise Rejected(f"{problem}; last log lines:\n{lines}") from cause
    milliseconds = (time.monotonic() - begin) * 1000
    problem = difference(release.golden_example, response.status_code, response.content)
    if not problem and (digest := response.headers.get("X-Model-Digest", "none")) != release.digest:
        problem = f"the server reports the digest {digest}, expected {release.digest}"
    if problem:
        raise Rejected("\n".join((problem, *server.last_log_lines())))
    return ProbeResult(release.version, release.digest, server.load_seconds, milliseconds, server.last_log_lines())


def _server_environment(model: Path, version: str, port: int, scratch: str, keys: Sequence[str]) -> dict[str, str]:
    """Return the complete environment of the server: only PATH is passed on from this process."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": scratch,
        "TMPDIR": scratch,
        "LANG": "C.UTF-8",
        "SM_MODEL_DIR": str(model.resolve()),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "RATCHET_BIND_HOST": "127.0.0.1",
        "RATCHET_MODEL_VERSION": version,
        "RATCHET_TRUSTED_KEYS": " ".join(keys),
        "RATCHET_MODEL_CODE": "refuse",  # as in the model server, where several models share a process
        "RATCHET_STOP_WITH_STDIN": "1",
        "OMP_NUM_THREADS": "1",
        "LOKY_MAX_CPU_COUNT": "1",
    }


def _start(command: Sequence[str], environment: dict[str, str], scratch: str, log: Path) -> "subprocess.Popen[bytes]":
    try:
        with log.open("wb") as output:
            return subprocess.Popen(
                list(command),
                env=environment,
                cwd=scratch,
                stdin=subprocess.PIPE,  # closes when this process dies, which ends the server
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as cause:
        raise Rejected(f"the scoring server {list(command)} does not start: {cause}") from cause


def _wait_until_healthy(server: ScoringServer, deadline: float, digest: str) -> None:
    with httpx.Client(timeout=1.0, trust_env=False) as client:
        while time.monotonic() < deadline:
            if (code := server.process.poll()) is not None:
                raise Rejected(
                    f"the scoring server {_exit_description(code)} before it was healthy; {_log_excerpt(server)}"
                )
            try:
                response = client.get(f"{server.url}/ping")
                reported = response.headers.get("X-Model-Digest", digest) if digest else ""
                if response.status_code == 200 and reported == digest:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.03)
    raise Rejected(f"the scoring server did not respond to /ping in time; {_log_excerpt(server)}")


def _log_excerpt(server: ScoringServer) -> str:
    lines = server.last_log_lines()
    return "its last log lines:\n" + "\n".join(lines) if lines else "its log is empty"


def _exit_description(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill the server and its child processes; it has no state that must be saved."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin:
        process.stdin.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

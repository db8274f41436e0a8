"""Preflight: a separate scoring server for one release, without live traffic and without secrets of this process."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydantic import BaseModel, Field

from blocks.common.errors import Rejected
from blocks.common.temporary_folders import temporary_folder
from blocks.endpoints.base import ProbeResult, Release
from blocks.endpoints.golden import difference

_SERVE_PROGRAM = Path(__file__).resolve().parents[2] / "runtime" / "serve.py"
_LOG_TAIL_LINES = 20


@dataclass(frozen=True)
class _ScoringServer:
    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def last_log_lines(self) -> tuple[str, ...]:
        return tuple(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:])


class PreflightSettings(BaseModel):
    """Settings of a preflight."""

    load_timeout_seconds: float = Field(
        default=60.0, gt=0, description="Timeout for loading a model and its first response, in seconds."
    )
    serve_command: list[str] = Field(
        default_factory=lambda: [sys.executable, str(_SERVE_PROGRAM)],
        description="The scoring server that preflight starts: a program and its arguments.",
    )

    def _probe(self, release: Release, trusted_keys: Sequence[str]) -> ProbeResult:
        """Serve the artifact on a free port of 127.0.0.1, send it the golden request, and end the server.

        The program follows SageMaker's container contract. It loads only models that one of the trusted keys signed.

        Raises:
            Rejected: the server ended or was not healthy in time, got no or another answer, or reports another digest;
                the message has its last log lines.
        """
        begin = time.monotonic()
        deadline = begin + self.load_timeout_seconds
        with temporary_folder(None, "ratchet-preflight-") as scratch:
            try:
                server = _start_on_free_port(self.serve_command, release, trusted_keys, scratch, deadline)
                try:
                    return _send_golden_request(server, release, time.monotonic() - begin, deadline)
                finally:
                    _kill(server.process)
            except Rejected as cause:
                raise Rejected(f"version {release.version} of {release.endpoint} is refused: {cause}") from cause


def _start_on_free_port(
    command: Sequence[str], release: Release, keys: Sequence[str], scratch: Path, deadline: float
) -> _ScoringServer:
    """Start the server and wait until it is healthy; use a new port if another program took the first."""
    while True:
        port, log = _free_port(), scratch / "server.log"
        process = _start(command, _server_environment(release, port, str(scratch), keys), str(scratch), log)
        server = _ScoringServer(f"http://127.0.0.1:{port}", process, log)
        try:
            _wait_until_healthy(server, deadline, release.digest)
        except BaseException:
            _kill(process)
            if process.returncode == 1 and any("address already in use" in line for line in server.last_log_lines()):
                continue
            raise
        return server


def _send_golden_request(server: _ScoringServer, release: Release, load_seconds: float, deadline: float) -> ProbeResult:
    """Send the golden request; compare the predictions, and the digest that the server reports."""
    begin = time.monotonic()
    try:
        response = httpx.post(
            f"{server.url}/invocations",
            content=release.golden_example.request.encode(),
            headers={"Content-Type": "application/json"},
            timeout=max(deadline - begin, 0.1),
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
    return ProbeResult(release.version, release.digest, load_seconds, milliseconds, server.last_log_lines())


def _server_environment(release: Release, port: int, scratch: str, keys: Sequence[str]) -> dict[str, str]:
    """Return the complete environment of the server: only PATH is passed on from this process."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": scratch,
        "TMPDIR": scratch,
        "LANG": "C.UTF-8",
        "SM_MODEL_DIR": str(release.artifact.resolve()),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "RATCHET_BIND_HOST": "127.0.0.1",
        "RATCHET_MODEL_VERSION": release.version,
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


def _wait_until_healthy(server: _ScoringServer, deadline: float, digest: str) -> None:
    """Wait for `/ping`. A server that reports another digest is another program that took the port."""
    with httpx.Client(timeout=1.0, trust_env=False) as client:
        while time.monotonic() < deadline:
            if (code := server.process.poll()) is not None:
                raise Rejected(
                    f"the scoring server {_exit_description(code)} before it was healthy; {_log_excerpt(server)}"
                )
            try:
                response = client.get(f"{server.url}/ping")
                if response.status_code == 200 and response.headers.get("X-Model-Digest", digest) == digest:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.03)
    raise Rejected(f"the scoring server did not respond to /ping in time; {_log_excerpt(server)}")


def _log_excerpt(server: _ScoringServer) -> str:
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

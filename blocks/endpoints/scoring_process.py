"""A scoring server that is started to be asked once: apart from live traffic, with none of our secrets."""

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
    """A running server: its address, the seconds until it answered, and its log's file."""

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
    """Start the server on a free port of 127.0.0.1, wait until `/ping` answers 200, and end it afterwards.

    Args:
        command: the program and its arguments; it follows SageMaker's container contract.
        model: the MLflow model folder.
        version: what the server says of itself.
        deadline: of `time.monotonic`.
        trusted_keys: the public keys whose models it may load.
        digest: of the model; a server that says another one is somebody else's, who took the port.

    Raises:
        Rejected: it ended, or did not answer by the deadline; the message carries its last words.
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
    """Start the server and wait until it answers; where another program took the port meanwhile, on a new one."""
    while True:
        port, log = _free_port(), scratch / "server.log"
        process = _start(command, _server_environment(model, version, port, str(scratch), keys), str(scratch), log)
        server = ScoringServer(f"http://127.0.0.1:{port}", 0.0, process, log)
        try:
            _wait_until_healthy(server, deadline, digest)
        except BaseException:
            _kill(process)
            if process.returncode == 1 and any("address already in use" in word for word in server.last_log_lines()):
                continue
            raise
        return server


def probe_server(server: ScoringServer, release: Release, timeout_seconds: float) -> ProbeResult:
    """Put the golden request to a server and compare what it answers, and whose digest it bears."""
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
        words = "\n".join(server.last_log_lines())
        raise Rejected(f"the golden request got no answer ({type(cause).__name__}); last words:\n{words}") from cause
    milliseconds = (time.monotonic() - begin) * 1000
    problem = difference(release.golden_example, response.status_code, response.content)
    if not problem and (digest := response.headers.get("X-Model-Digest", "none")) != release.digest:
        problem = f"the server answered for the digest {digest}, expected {release.digest}"
    if problem:
        raise Rejected("\n".join((problem, *server.last_log_lines())))
    return ProbeResult(release.version, release.digest, server.load_seconds, milliseconds, server.last_log_lines())


def _server_environment(model: Path, version: str, port: int, scratch: str, keys: Sequence[str]) -> dict[str, str]:
    """Return all that the server's environment holds: nothing of ours is handed on but PATH."""
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
        "RATCHET_OWN_CODE": "refuse",  # as the host, where several models share a process
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
                    f"the scoring server {_exit_description(code)} before it answered; {_log_excerpt(server)}"
                )
            try:
                answer = client.get(f"{server.url}/ping")
                whose = answer.headers.get("X-Model-Digest", digest) if digest else ""
                if answer.status_code == 200 and whose == digest:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.03)
    raise Rejected(f"the scoring server did not answer /ping in time; {_log_excerpt(server)}")


def _log_excerpt(server: ScoringServer) -> str:
    words = server.last_log_lines()
    return "its last words:\n" + "\n".join(words) if words else "it said nothing"


def _exit_description(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the server and whatever it started; it holds no state that a soft end would save."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin:
        process.stdin.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

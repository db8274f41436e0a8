"""The container's entry point `train`: runs a training program, which need not know SageMaker's contract.

It reads `input/config/*.json` below `$SAGEMAKER_BASE_DIR` (default `/opt/ml`), derives the `SM_*` variables, and runs
`train.py` of the channel `code` (or of `$RATCHET_PROGRAM`) as a child in a process group of its own. It passes SIGTERM
on to the child, writes the last lines of the child's stderr to `output/failure`, and ends with the child's exit code
(128 + the signal's number if a signal ended the child). It imports only its siblings from the project.

Outside SageMaker two variables count: when the process `$RATCHET_PARENT_PID` has ended, the training ends too; and the
outcome is written to `$RATCHET_STATUS_FILE` as one JSON object, atomically. The program can be started in a sandbox:
`$RATCHET_SANDBOX` is the command that starts it there, and `$RATCHET_TRACKING` the one address (host, port there, port
inside, as JSON) that it reaches there, through a socket in the folder `bridge`.
"""

import asyncio
import ctypes
import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

if not __package__:  # started by its path: the package `runtime` is found one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from runtime.files import write_text_atomically
from runtime.foreign_text import print_text

TAIL_LINES = 20
FAILURE_CHARACTERS = 980
"""SageMaker shows 1024 characters, including its own text around the content of `output/failure`."""
GRACE_SECONDS = 5.0
PARENT_POLL_SECONDS = 0.5
BRIDGE_SOCKET, BRIDGE_IN_SANDBOX = Path("bridge") / "socket", Path("/run/ratchet/socket")
"""The socket of the sandbox's one connection: below the job's folder, and inside the sandbox."""
KEYRING_CALLS = {"x86_64": (0xC000003E, 248, 250), "aarch64": (0xC00000B7, 217, 219)}
"""By processor: Linux's number of its architecture, and of the first and last of add_key, request_key and keyctl."""
JOIN_SESSION_KEYRING = 1
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def main(environment: Mapping[str, str]) -> int:
    """Run the training program once and return its exit code."""
    started = time.monotonic()
    base = Path(environment.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
    try:
        code, reason = run_program(base, environment)
    except (OSError, ValueError) as cause:  # configuration that is missing or is not JSON, no such program
        code, reason = 1, f"the container's input cannot be used: {cause}"
        print_text(reason, file=sys.stderr, flush=True)
    if code:
        report(base / "output" / "failure", reason[-FAILURE_CHARACTERS:])
    if status_file := environment.get("RATCHET_STATUS_FILE"):
        seconds = round(time.monotonic() - started, 3)
        report(Path(status_file), json.dumps({"exit_code": code, "reason": reason, "seconds": seconds}))
    return code


def run_program(base: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Start the program, wait, and return its exit code and, unless that is 0, the reason: its last lines."""
    program = program_file(base, environment)
    derived = sagemaker_variables(base, environment)
    filters = [keyring_filter()] if derived.get("RATCHET_SANDBOX") else []
    child = subprocess.Popen(
        sandboxed([sys.executable, str(program)], base, derived, filters),
        env=derived,
        cwd=program.parent,
        stderr=subprocess.PIPE,
        process_group=0,
        pass_fds=filters,
    )
    signal.signal(signal.SIGTERM, lambda number, _frame: signal_group(child, number))
    parent_exited = threading.Event()
    if parent := environment.get("RATCHET_PARENT_PID"):
        threading.Thread(target=stop_when_parent_exits, args=(int(parent), child, parent_exited), daemon=True).start()
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    reader = threading.Thread(target=forward_lines, args=(child.stderr, tail), daemon=True)
    reader.start()
    code = child.wait()
    signal_group(child, signal.SIGKILL)  # processes that the program left running would hold its pipe and memory
    reader.join(timeout=1)  # a process that left the group may hold the pipe open
    if parent_exited.is_set():
        return 128 + signal.SIGTERM, f"interrupted: the process {parent} that submitted the job is gone"
    return exit_code_and_reason(code, "".join(tail).strip())


def keyring_filter() -> int:
    """Leave the session's keyring, and return a descriptor of the seccomp filter that refuses all calls of keyrings.

    Keyrings are no files: a sandbox inherits that of the session, and finds others of its user by number. A program of
    another architecture than this process's can make no call at all.

    Raises:
        OSError: the numbers of these calls are not known for this processor.
    """
    machine = os.uname().machine
    if machine not in KEYRING_CALLS:
        raise OSError(f"no sandbox on a processor {machine}: only on {', '.join(KEYRING_CALLS)}")
    architecture, first, last = KEYRING_CALLS[machine]
    ctypes.CDLL(None).syscall(last, JOIN_SESSION_KEYRING, None)  # an empty one; the filter does not need it
    load, equal, at_least, above, end = 0x20, 0x15, 0x35, 0x25, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.ENOSYS
    steps = [
        (load, 0, 0, 4), (equal, 0, 4, architecture), (load, 0, 0, 0), (at_least, 2, 0, 0x40000000),  # x32's numbers
        (at_least, 0, 2, first), (above, 1, 0, last), (end, 0, 0, refuse), (end, 0, 0, allow),
    ]  # fmt: skip
    reader, writer = os.pipe()
    os.write(writer, b"".join(struct.pack("=HBBI", *step) for step in steps))
    os.close(writer)
    return reader


def sandboxed(command: Sequence[str], base: Path, variables: dict[str, str], filters: Sequence[int]) -> list[str]:
    """Return the command that runs `command` in the sandbox, if there is one, and open the sandbox's connection."""
    prefix, tracking = json.loads(variables.pop("RATCHET_SANDBOX", "[]")), variables.pop("RATCHET_TRACKING", "")
    prefix += [option for number in filters for option in ("--seccomp", str(number))]
    if not (prefix and tracking):
        return [*prefix, *command]
    host, port, inside = json.loads(tracking)
    os.chdir(base)  # the path of a socket has fewer than 108 bytes
    BRIDGE_SOCKET.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(BRIDGE_SOCKET))
    pass_connections(listener, lambda: asyncio.open_connection(host, port))
    return [*prefix, sys.executable, str(Path(__file__).resolve()), str(inside), *command]


def run_in_sandbox(port: int, command: Sequence[str]) -> int:
    """Run the command, with the sandbox's connection on the local port, and return its exit code."""
    pass_connections(socket.create_server(("127.0.0.1", port)), lambda: asyncio.open_unix_connection(BRIDGE_IN_SANDBOX))
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)  # the command gets the signal, too, and decides
    code = subprocess.run(command, check=False).returncode
    return code if code >= 0 else 128 - code


def pass_connections(listener: socket.socket, connect: Callable[[], Awaitable[Streams]]) -> None:
    """Pass what comes on the listener to a new connection each, in a thread, as long as this process runs."""
    listener.listen()

    async def pass_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            other_reader, other_writer = await connect()
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy_stream(reader, other_writer), copy_stream(other_reader, writer))

    async def serve() -> None:
        await (await asyncio.start_server(pass_one, sock=listener)).serve_forever()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()


async def copy_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end of one stream to the other, and close that."""
    try:
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


def program_file(base: Path, environment: Mapping[str, str]) -> Path:
    """Return `train.py` of the channel `code`, or of `$RATCHET_PROGRAM` if there is no such channel."""
    code = base / "input" / "data" / "code"
    folder = code if code.is_dir() else Path(environment.get("RATCHET_PROGRAM", str(code)))
    if not (folder / "train.py").is_file():
        raise FileNotFoundError(f"no train.py in {folder}; give a channel `code` or RATCHET_PROGRAM")
    return folder / "train.py"


def sagemaker_variables(base: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the `SM_*` variables that SageMaker's training toolkit would set."""
    channels = sorted(read_json(base, "inputdataconfig"))
    hosts = read_json(base, "resourceconfig")
    folders = {"SM_MODEL_DIR": base / "model", "SM_OUTPUT_DATA_DIR": base / "output" / "data"}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    own = {name: str(folder) for name, folder in folders.items()}
    own |= {f"SM_CHANNEL_{name.upper()}": str(base / "input" / "data" / name) for name in channels}
    own["SM_CHANNELS"] = json.dumps(channels)
    own["SM_HPS"] = json.dumps(read_json(base, "hyperparameters"))
    own["SM_CURRENT_HOST"] = str(hosts.get("current_host", "algo-1"))
    own["SM_HOSTS"] = json.dumps(hosts.get("hosts", ["algo-1"]))
    return {**environment, **own}


def read_json(base: Path, name: str) -> dict[str, Any]:
    """Return one file of `input/config` as an object; empty if the file does not exist."""
    path = base / "input" / "config" / f"{name}.json"
    if not path.exists():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, not an object")
    return content


def forward_lines(source: IO[bytes] | None, tail: deque[str]) -> None:
    """Write the child's stderr to this process's, line by line, and keep its last lines."""
    for line in source or ():
        tail.append(line.decode(errors="replace"))
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()


def exit_code_and_reason(code: int, last_lines: str) -> tuple[int, str]:
    """Return the exit code to end with and the reason; a child ended by signal n counts as 128 + n."""
    if code == 0:
        return 0, ""
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return (128 - code if code < 0 else code), f"{last_lines}\n{how}" if last_lines else how


def stop_when_parent_exits(parent: int, child: "subprocess.Popen[bytes]", gone: threading.Event) -> None:
    """End the child when the submitting process has ended: no process would wait for it or stop it."""
    direct = os.getppid() == parent
    while child.poll() is None:
        if not (os.getppid() == parent if direct else process_exists(parent)):
            gone.set()
            signal_group(child, signal.SIGTERM)
            time.sleep(GRACE_SECONDS)
            signal_group(child, signal.SIGKILL)
            return
        time.sleep(PARENT_POLL_SECONDS)


def process_exists(pid: int) -> bool:
    """Return whether a process with that number exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def signal_group(child: "subprocess.Popen[bytes]", number: int) -> None:
    """Send the signal to all running processes of the child's group."""
    try:
        os.killpg(child.pid, number)
    except (ProcessLookupError, PermissionError):  # PermissionError: a group of zombies on macOS
        return


def report(path: Path, text: str) -> None:
    """Write a file atomically; create its folder if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, text)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(run_in_sandbox(int(sys.argv[1]), sys.argv[2:]))
    sys.exit(main(os.environ))

"""Run a module like `python -m MODULE ARGUMENTS`, in a fork of the warm process at `$RATCHET_WARM_PROCESS`.

`python -I -S warm_client.py MODULE [ARGUMENT ...]`

It represents the program: output, working directory and environment are the caller's; SIGTERM and SIGINT are passed
on; it ends with the program's exit code; and if it is killed, so is the program. If no warm process responds, it
becomes the program itself. It uses only the standard library, so that it starts fast.

If `$RATCHET_RUN_OUTPUT` names a file, the output is appended to that file: a caller's pipe breaks when the caller is
killed, and the flow run would end at its next log line (Rich, which writes it, then exits the program).
"""

import json
import os
import signal
import socket
import sys

SOCKET_VARIABLE = "RATCHET_WARM_PROCESS"
"""Variable with the path of the warm process's socket."""

OUTPUT_VARIABLE = "RATCHET_RUN_OUTPUT"
"""Variable with the path of the file to which output is appended; without it, output goes to the caller's."""


def main(arguments: list[str]) -> int:
    """Run the module, warm or cold, and return its exit code; a signal that ended the program ends this one, too."""
    if path := os.environ.get(OUTPUT_VARIABLE):
        redirect_output(path)
    connection = connect(os.environ.get(SOCKET_VARIABLE, ""))
    if connection is None:
        os.execv(sys.executable, [sys.executable, "-m", *arguments])
    with connection:
        passed_on = (signal.SIGTERM, signal.SIGINT)
        signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)  # until they can be: the program may run before that
        send_job(connection, arguments)
        answers = connection.makefile("r")
        pid = int(json.loads(answers.readline() or '{"pid": 0}')["pid"])
        if pid == 0:  # the warm process ended before it forked: nothing has run yet
            signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
            os.execv(sys.executable, [sys.executable, "-m", *arguments])
        for number in passed_on:
            signal.signal(number, lambda received, _: os.kill(pid, received))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
        last = answers.readline()
    code = int(json.loads(last)["code"]) if last else 1
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def redirect_output(path: str) -> None:
    """Append standard output and error to the file; where it cannot be opened they stay the caller's."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as problem:
        print(f"output is not kept in {path}: {problem.strerror}", file=sys.stderr)
        return
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


def connect(address: str) -> socket.socket | None:
    """Return a connection to the warm process, or None when there is none."""
    if not address:
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        return None
    return connection


def send_job(connection: socket.socket, arguments: list[str]) -> None:
    """Send what to run, where and with what, and the three standard streams."""
    job = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd(), "client_pid": os.getpid()}  # noqa: PTH109  pathlib is slow to import
    socket.send_fds(connection, [b" "], [0, 1, 2])  # with one byte, which cannot be sent in part
    connection.sendall(json.dumps(job).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

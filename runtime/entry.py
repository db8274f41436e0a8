"""Entry point of the image: `train` and `serve` as SageMaker calls them, and any other command unchanged.

    docker run IMAGE train                          the training program of the channel `code` (train.py)
    docker run IMAGE serve                          the scoring server (serve.py)
    docker run IMAGE prefect worker start --pool …  anything else, such as a flow run on ECS

The started program replaces this process, so that signals reach it. This module imports nothing of the project.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = {"train": HERE / "train.py", "serve": HERE / "serve.py"}


def resolve_command(arguments: list[str]) -> list[str]:
    """Return the command line of the program to start; empty without arguments."""
    if arguments and arguments[0] in PROGRAMS:
        return [sys.executable, str(PROGRAMS[arguments[0]]), *arguments[1:]]
    return arguments


def main(arguments: list[str]) -> int:
    """Replace this process by the command. Returns 2 without a command, and 127 if there is no such program."""
    command = resolve_command(arguments)
    if not command:
        print("say what to run: train, serve, or a command", file=sys.stderr)
        return 2
    sys.stdout.flush()
    try:
        os.execvp(command[0], command)
    except OSError as cause:
        print(
            f"{command[0]}: {cause.strerror}; this image runs train, serve, or a command on its PATH", file=sys.stderr
        )
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The one entry point of the image: `train` and `serve` as SageMaker calls them, and any other command as it is.

    docker run IMAGE train                          the training program of the channel `code` (train.py)
    docker run IMAGE serve                          the scoring server (serve.py)
    docker run IMAGE prefect worker start --pool …  anything else, such as a flow run on ECS

It replaces itself by what it starts, so that signals reach that. It imports nothing of the project.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = {"train": HERE / "train.py", "serve": HERE / "serve.py"}


def resolve_command(arguments: list[str]) -> list[str]:
    """Return the program and its arguments that these stand for; none when nothing was asked for."""
    if arguments and arguments[0] in PROGRAMS:
        return [sys.executable, str(PROGRAMS[arguments[0]]), *arguments[1:]]
    return arguments


def main(arguments: list[str]) -> int:
    """Become the command. Returns only when there is none: 2, or 127 when there is no such program."""
    wanted = resolve_command(arguments)
    if not wanted:
        print("say what to run: train, serve, or a command", file=sys.stderr)
        return 2
    sys.stdout.flush()
    try:
        os.execvp(wanted[0], wanted)
    except OSError as cause:
        print(f"{wanted[0]}: {cause.strerror}; this image runs train, serve, or a command on its PATH", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Fuzz the parsers and the servers for some minutes: `make fuzz ARGS="--minutes 60 --only requests --seed 7"`.

Each round of examples has a seed of its own, which is printed; a round with the same seed has the same examples. A
fault ends the command with 1, after the smallest example that shows it.
"""

import argparse
import logging
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.parsers import PARSERS, Target
from tests.fuzz.servers import SERVERS

EXAMPLES, HANG_SECONDS, MAX_BYTES = 200, 60, 256 << 20
"""Examples of a round; seconds after which an example counts as a hang; bytes that one example may add to the process."""

RESET_PEAK = Path("/proc/self/clear_refs")


class TooMuch(Exception):
    """An example took too much memory, or did not come to an end."""


def run_round(target: Target, number: int, examples: int = EXAMPLES) -> None:
    """Try the examples of a seed. Raises the error of the smallest example that shows a fault."""

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck),
              phases=[Phase.generate, Phase.shrink])  # fmt: skip
    @given(target.inputs)
    def attempt(value: Any) -> None:
        RESET_PEAK.write_text("5")
        before = _memory_bytes("VmRSS")
        target.attempt(value)
        if (more := _memory_bytes("VmHWM") - before) > MAX_BYTES:
            raise TooMuch(f"{more >> 20} MiB for one example")

    attempt()


def _memory_bytes(name: str) -> int:
    """Return the memory of this process: VmRSS now, VmHWM at most since the peak was reset (Linux)."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")]
    return 1024 * int(line.split()[1])


@contextmanager
def _time_limit() -> Iterator[None]:
    """Raise TooMuch in a round that does not come to an end."""

    def stop(*_: object) -> None:
        raise TooMuch(f"an example took more than {HANG_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _watched(target: Target) -> Target:
    def attempt(value: Any) -> None:
        signal.alarm(HANG_SECONDS)
        try:
            target.attempt(value)
        finally:
            signal.alarm(0)

    return Target(target.inputs, attempt)


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of the first round")
    parser.add_argument("--only", choices=[*PARSERS, *SERVERS], help="one target")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="of one round")
    said = parser.parse_args(arguments)
    chosen = [said.only] if said.only else [*PARSERS, *SERVERS]
    with ExitStack() as stack, _time_limit():
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)
        for name in chosen:
            target = _watched(PARSERS[name] if name in PARSERS else stack.enter_context(SERVERS[name]()))
            number, rounds, end = said.seed, 0, time.monotonic() + said.minutes * 60 / len(chosen)
            while rounds == 0 or time.monotonic() < end:
                try:
                    run_round(target, number, said.examples)
                except Exception:
                    again = f"--only '{name}' --seed {number} --examples {said.examples} --minutes 0"
                    print(f'{name}: a fault. Repeat it: make fuzz ARGS="{again}"', flush=True)
                    raise
                number, rounds = number + 1, rounds + 1
            print(f"{name}: {rounds * said.examples} examples, seeds {said.seed} to {number - 1}: no fault", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

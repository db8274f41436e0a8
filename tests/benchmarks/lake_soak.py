"""The as-of contract over a longer time: `python -m tests.benchmarks.lake_soak`, or `make soak-lake`.

Options: `[--operations 1000] [--seed N]`. Random appends, compactions, garbage collections, kills and readers on one
lake (tests/faults/test_lake_contract.py, of which CI runs a hundred). The program ends with an error at the first
read that does not repeat byte by byte. It prints the seed.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

from tests.fixtures.live_lake import live


def main() -> None:
    """Run it once, and print what was done."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.lake_soak", description=__doc__)
    parser.add_argument("--operations", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**8), help="by chance when it is not given")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ratchet-soak-") as folder:
        done = live(Path(folder) / "lake", seed=options.seed, operations=options.operations)
    told = ", ".join(f"{count:,} {what}" for what, count in sorted(done.items()))
    print(f"{options.operations:,} operations in {time.monotonic() - begun:.0f} s: {told}. Every read repeated.")


if __name__ == "__main__":
    main()

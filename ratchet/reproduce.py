"""Train a promoted version again from its evidence pack, and say what came of it.

`python -m ratchet.reproduce [MODEL] [VERSION] [--fresh]`, against the running stack: what the deployment
`reproduce/reproduce` does. Exit code 1 when another model came of it.
"""

import argparse
import sys

from blocks.common.errors import PortError
from deployments.runs import begin, ended, follow
from local.stack import use


def main(arguments: list[str] | None = None) -> int:
    """Start the flow, wait for its end, and print the verdict."""
    options = _parser().parse_args(arguments)
    try:
        use()
        given = {"model": options.model, "version": options.version, "environment": options.environment,
                 "fresh_environment": options.fresh}  # fmt: skip
        run = follow(begin("reproduce/reproduce", given), until=ended, seconds=3600)
    except PortError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    state = run.state
    print(f"{state.name}: {state.message}" if state else "the run has no state")
    return 0 if state and state.is_completed() else 1


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m ratchet.reproduce", description=__doc__, formatter_class=raw)
    parser.add_argument("model", nargs="?", default="", help="a folder below models/; all that serve when left out")
    parser.add_argument("version", nargs="?", default="", help="a promoted version; the one that serves when left out")
    parser.add_argument("--fresh", action="store_true", help="install the pack's lock file into a new environment")
    parser.add_argument("--environment", default="local", help="the set of adapters to run on")
    return parser


if __name__ == "__main__":
    sys.exit(main())

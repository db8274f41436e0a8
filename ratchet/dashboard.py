"""Draw the page about a model now, against the running stack: `python -m ratchet.dashboard MODEL`.

Without a model every one is drawn, those in namespaces as well. Looks, deployments and rollbacks draw it by themselves.
"""

import argparse
import sys
from datetime import UTC, datetime

from blocks.common.errors import PortError
from blocks.environment import open_environment
from local.stack import use
from tasks.dashboard.drawing import draw
from tasks.shared.namespaces import known_models
from tasks.shared.rules.refusal import Refusal


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 1 when a page could not be drawn, with the reason on standard error."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m ratchet.dashboard", description=__doc__, formatter_class=raw)
    parser.add_argument("model", nargs="*", help="a folder below models/; all of them when left out")
    parser.add_argument("--environment", default="local", help="the environment that the page is about")
    options = parser.parse_args(arguments)
    try:
        use()
        world = open_environment(options.environment)
        for model in options.model or known_models(world):
            drawn = draw(world, model, datetime.now(UTC))
            print(f"{drawn.headline}\n  {drawn.url or 'not served in this environment'}\n  {drawn.path}")
    except (PortError, Refusal, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The gateway's process: `python -m services.gateway serve` takes deliveries of git hosts in and starts flow runs."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from blocks.common.errors import PortError
from tasks.shared.rules.refusal import Refusal


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; outside, a proxy with TLS stands before.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8090,
    environment: Annotated[str, typer.Option(help="The environment whose ledger to use.")] = "local",
    triggers: Annotated[
        Path | None, typer.Option(help="The file of rules; deployments/triggers.yaml when left out.")
    ] = None,
    max_bytes: Annotated[int, typer.Option(help="The largest body that is read.")] = 1_048_576,
) -> None:
    """Take deliveries of git hosts in, start flow runs, and show the approvals page, until told to stop."""
    from deployments.state import state_folder
    from services.gateway.app import RequestLimits
    from services.gateway.server import listen
    from services.gateway.server import serve as serve_until_told
    from services.gateway.settings import TRIGGERS, EnvironmentReader, open_inbox, read_triggers

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for talkative in ("httpx", "httpcore"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    inbox, rules = open_inbox(environment), read_triggers(triggers or TRIGGERS)
    with listen(host, port) as listener:
        limits = RequestLimits(body_bytes=max_bytes)
        serve_until_told(inbox, rules, state_folder(), listener, limits, EnvironmentReader(environment))


def main() -> None:
    """Serve; what keeps the gateway from it is said on standard error, with exit code 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(serve)
    app.callback()(lambda: None)  # with it, `serve` is a word of the command line
    try:
        app()
    except (Refusal, PortError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

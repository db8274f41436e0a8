"""The gateway: `python -m services.gateway serve` receives deliveries of git hosts and starts flow runs for them."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from blocks.common.errors import PortError
from runtime.foreign_text import log_visible_text, print_text
from services.gateway.rules.changes import MAX_BODY_BYTES
from tasks.shared.rules.refusal import Refusal


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; put a TLS proxy in front when it is reachable from outside.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 chooses a free one.")] = 8090,
    environment: Annotated[str, typer.Option(help="The environment whose ledger is used.")] = "local",
    triggers: Annotated[
        Path | None, typer.Option(help="The file of trigger rules; default: deployments/triggers.yaml.")
    ] = None,
    max_bytes: Annotated[int, typer.Option(help="Maximum size of a delivery's body, in bytes.")] = MAX_BODY_BYTES,
) -> None:
    """Receive deliveries of git hosts, start flow runs, and serve the approvals page, until stopped."""
    from deployments.state import state_folder
    from services.gateway import server
    from services.gateway.limits import RequestLimits
    from services.gateway.settings import TRIGGERS, EnvironmentReader, open_inbox, read_triggers

    log_visible_text()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for verbose_logger in ("httpx", "httpcore"):
        logging.getLogger(verbose_logger).setLevel(logging.WARNING)
    inbox, rules = open_inbox(environment), read_triggers(triggers or TRIGGERS)
    with server.listen(host, port) as listener:
        limits = RequestLimits(body_bytes=max_bytes)
        server.serve(inbox, rules, state_folder(), listener, limits, EnvironmentReader(environment))


def main() -> None:
    """Run the gateway. An error at the start is printed on standard error, with exit code 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(serve)
    app.callback()(lambda: None)  # keeps `serve` a command of its own, although it is the only one
    try:
        app()
    except (Refusal, PortError, OSError) as error:
        print_text(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

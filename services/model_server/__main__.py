"""Starts the host: `python -m services.model_server --port 8081 --state .ratchet/hosting --token-file token`.

It listens on 127.0.0.1 alone. The token's file must be readable by its owner only. Port 0 takes a free one;
the address is printed first, and answers as soon as what served before is loaded.
"""

import argparse
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from services.model_server.access import InvalidTokenFile, read_token
from services.model_server.state import StateInUse, lock_state


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop. Returns 2 when it cannot start, with the reason on standard error."""
    options = _options(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # many small requests, not one large one
    os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        token = read_token(options.token_file)
        with lock_state(options.state), _listen(options.port) as listener:
            _serve(options, token, listener)
    except (InvalidTokenFile, StateInUse, OSError, ValueError) as cause:
        print(f"hosting: {cause}", file=sys.stderr)
        return 2
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.model_server", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--state", type=Path, required=True, help="folder of what is served and its artifacts")
    parser.add_argument("--token-file", type=Path, required=True, help="file of mode 0600 with the admin token")
    parser.add_argument(
        "--trusted-key", action="append", default=[], help="a public key whose models are loaded; none: no model is"
    )
    parser.add_argument("--load-seconds", type=float, default=60.0, help="how long a model may take to load")
    parser.add_argument(
        "--dashboards", type=Path, help="folder of pages to show below /dashboards/; none when left out"
    )
    return parser.parse_args(arguments)


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


def _serve(options: argparse.Namespace, token: str, listener: socket.socket) -> None:
    # two seconds of imports: after the checks that may refuse
    from services.model_server.endpoints import ServedEndpoints
    from services.model_server.server import create_app

    fleet = ServedEndpoints(options.state, options.load_seconds, options.trusted_key)
    app = create_app(fleet, token, dashboards=options.dashboards)
    config = uvicorn.Config(app, access_log=False, log_level="warning", timeout_graceful_shutdown=5)
    print(f"hosting on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    sys.exit(main())

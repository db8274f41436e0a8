"""Start the model server: `python -m services.model_server --port 8081 --state .ratchet/endpoints --token-file token`.

It listens on 127.0.0.1 only. The token file must be readable by its owner only. Port 0 chooses a free port. The
server prints its address first, and responds as soon as the models it served before are loaded.
"""

import argparse
import logging
import os
import socket
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from runtime.foreign_text import log_visible_text, print_text
from services.model_server.state import StateInUse, lock_state


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until stopped. Return 2 when the server cannot start, with the reason on standard error."""
    options = _options(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # many small requests, not one large one
    os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")
    log_visible_text()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        token = read_token(options.token_file)
        with lock_state(options.state), _listen(options.port) as listener:
            _serve(options, token, listener)
    except (InvalidTokenFile, StateInUse, OSError, ValueError) as cause:
        print_text(f"model server: {cause}", file=sys.stderr)
        return 2
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.model_server", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1; 0 chooses a free one")
    parser.add_argument("--state", type=Path, required=True, help="folder of the server's state and artifacts")
    parser.add_argument("--token-file", type=Path, required=True, help="file of mode 0600 with the admin token")
    parser.add_argument(
        "--trusted-key",
        action="append",
        default=[],
        help="public key whose models are loaded; without one, no model is",
    )
    parser.add_argument("--load-seconds", type=float, default=60.0, help="seconds that a model may take to load")
    parser.add_argument(
        "--address", action="append", default=[], help="URL of a reverse proxy in front; may be repeated"
    )
    parser.add_argument("--dashboards", type=Path, help="folder of the pages under /dashboards/; default: no pages")
    return parser.parse_args(arguments)


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


def _serve(options: argparse.Namespace, token: str, listener: socket.socket) -> None:
    # these imports take two seconds: do them after the checks that may fail
    from services.model_server.endpoints import ServedEndpoints
    from services.model_server.server import create_app

    fleet = ServedEndpoints(options.state, options.load_seconds, options.trusted_key)
    app = create_app(fleet, token, dashboards=options.dashboards, addresses=options.address)
    config = uvicorn.Config(
        app, access_log=False, log_level="warning", timeout_graceful_shutdown=5, proxy_headers=False
    )
    print_text(f"model server on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


class InvalidTokenFile(Exception):
    """The token file is not safe to use; the message says why and what to do."""


def read_token(path: Path) -> str:
    """Return the token in the file.

    Raises:
        InvalidTokenFile: there is no such file, others may read it, or the token is shorter than 16 characters.
    """
    try:
        mode = path.stat().st_mode
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise InvalidTokenFile(f"the token file {path} cannot be read: {cause}") from cause
    if stat.S_IMODE(mode) & 0o077:
        raise InvalidTokenFile(
            f"other users can access the token file {path} (mode {stat.S_IMODE(mode):04o}); chmod 600 it"
        )
    if len(token) < 16:
        raise InvalidTokenFile(f"the token in {path} has {len(token)} characters; at least 16 are needed")
    return token


if __name__ == "__main__":
    sys.exit(main())

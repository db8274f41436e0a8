"""The gateway's process: the door, the dispatcher and the reporter around one inbox; the desk, and who wakes runs."""

import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from blocks.environment import Environment
from blocks.inbox.base import Inbox
from deployments.secret_store import SecretStore
from services.gateway.app import RequestLimits, create_app
from services.gateway.approvals_ui.factory import create_context, create_router, open_store
from services.gateway.approvals_ui.resuming import PrefectSuspendedRuns, RunResumer
from services.gateway.dispatch import Dispatcher, open_repository_cache
from services.gateway.header_timeout import HeaderTimeoutProtocol
from services.gateway.in_flight import InFlightDeliveries
from services.gateway.reporting import Reporter, prefect_run_reader
from services.gateway.rules.rules import Triggers
from services.gateway.run_starter import PrefectRunStarter
from services.gateway.settings import senders_without_secret

_log = logging.getLogger("ratchet.gateway")

MAX_CONNECTIONS = 256
"""With more than so many at once further ones are told 503: memory stays bounded."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address; port 0 takes a free one."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


def serve(
    inbox: Inbox,
    triggers: Triggers,
    state: Path,
    listener: socket.socket,
    limits: RequestLimits,
    env: Callable[[], Environment],
) -> None:
    """Serve until told to stop; what is at work then ends first, and what waits, waits in the inbox."""
    vault, stop, woken, traffic = SecretStore(), threading.Event(), threading.Event(), InFlightDeliveries()
    for sender in senders_without_secret(triggers, vault):
        names = ", ".join(triggers.senders[sender].secrets)
        _log.warning("%s: every delivery is refused: no secret is set (%s)", sender, names)
    starter, mirrors = PrefectRunStarter(), open_repository_cache(state)
    dispatcher = Dispatcher(inbox, triggers, starter, mirrors, vault, wait_until_idle=traffic.wait_until_idle)
    reporter = Reporter(inbox, triggers, vault, prefect_run_reader(_prefect_ui_url()), give_way=traffic.wait_until_idle)
    decided = threading.Event()
    desk = create_context(env, open_store(state), on_decision=decided.set, vault=vault)
    waker = RunResumer(lambda: env().approvals(), PrefectSuspendedRuns())
    threads = [
        threading.Thread(target=dispatcher.run, args=(stop, woken), name="dispatcher", daemon=True),
        threading.Thread(target=reporter.run, args=(stop,), name="reporter", daemon=True),
        threading.Thread(target=waker.run, args=(stop, decided), name="waker", daemon=True),
    ]
    for thread in threads:
        thread.start()
    host, port = listener.getsockname()[:2]
    print(f"gateway on http://{host}:{port}", flush=True)
    app = create_app(inbox, triggers, vault, limits, woken.set, traffic, create_router(desk))
    try:
        uvicorn.Server(uvicorn_config(app)).run(sockets=[listener])
    finally:
        stop.set()
        woken.set()
        decided.set()
        for thread in threads:
            thread.join(timeout=5)


def uvicorn_config(app: FastAPI) -> uvicorn.Config:
    """Return how uvicorn serves the door: no access log (who knocks must not fill the disk), bounded connections."""
    return uvicorn.Config(
        app,
        http=HeaderTimeoutProtocol,
        access_log=False,
        log_level="warning",
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
    )


def _prefect_ui_url() -> str:
    return os.environ.get("PREFECT_API_URL", "").removesuffix("/").removesuffix("/api")

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
from deployments.secret_store import Vault
from services.gateway.app import Limits, application
from services.gateway.approvals.opening import open_desk, router_of, store_below
from services.gateway.approvals.waking import PrefectRuns, Waker
from services.gateway.dispatch import Dispatcher, mirrors_below
from services.gateway.header_timeout import ImpatientProtocol
from services.gateway.reporting import Reporter, look_at
from services.gateway.rules.rules import Triggers
from services.gateway.settings import unset
from services.gateway.starting import PrefectStarter
from services.gateway.traffic import Traffic

_log = logging.getLogger("ratchet.gateway")

CONNECTIONS = 256
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
    limits: Limits,
    world: Callable[[], Environment],
) -> None:
    """Serve until told to stop; what is at work then ends first, and what waits, waits in the inbox."""
    vault, stop, woken, traffic = Vault(), threading.Event(), threading.Event(), Traffic()
    for sender in unset(triggers, vault):
        names = ", ".join(triggers.senders[sender].secrets)
        _log.warning("%s: every delivery is refused: no secret is set (%s)", sender, names)
    starter, mirrors = PrefectStarter(), mirrors_below(state)
    dispatcher = Dispatcher(inbox, triggers, starter, mirrors, vault, give_way=traffic.give_way)
    reporter = Reporter(inbox, triggers, vault, look_at(_ui()), give_way=traffic.give_way)
    decided = threading.Event()
    desk = open_desk(world, store_below(state), woken=decided.set, vault=vault)
    waker = Waker(lambda: world().approvals(), PrefectRuns())
    threads = [
        threading.Thread(target=dispatcher.run, args=(stop, woken), name="dispatcher", daemon=True),
        threading.Thread(target=reporter.run, args=(stop,), name="reporter", daemon=True),
        threading.Thread(target=waker.run, args=(stop, decided), name="waker", daemon=True),
    ]
    for thread in threads:
        thread.start()
    host, port = listener.getsockname()[:2]
    print(f"gateway on http://{host}:{port}", flush=True)
    app = application(inbox, triggers, vault, limits, woken.set, traffic, router_of(desk))
    try:
        uvicorn.Server(config(app)).run(sockets=[listener])
    finally:
        stop.set()
        woken.set()
        decided.set()
        for thread in threads:
            thread.join(timeout=5)


def config(app: FastAPI) -> uvicorn.Config:
    """Return how uvicorn serves the door: no access log (who knocks must not fill the disk), bounded connections."""
    return uvicorn.Config(
        app,
        http=ImpatientProtocol,
        access_log=False,
        log_level="warning",
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
    )


def _ui() -> str:
    return os.environ.get("PREFECT_API_URL", "").removesuffix("/").removesuffix("/api")

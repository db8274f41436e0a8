"""The gateway process: HTTP application, dispatcher, status reporter, approvals page, and the resumer of runs."""

import logging
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from pydantic import IPvAnyNetwork

from blocks.environment import Environment
from blocks.inbox.base import Inbox
from deployments.secret_store import SecretStore
from runtime.foreign_text import print_text
from services.decisions import RunResumer, resume_suspended
from services.gateway.app import create_app
from services.gateway.approvals_ui.api import create_router
from services.gateway.approvals_ui.store import open_store
from services.gateway.approvals_ui.users import create_context
from services.gateway.dispatch import Dispatcher, open_repository_cache
from services.gateway.limits import HeaderTimeoutProtocol, InFlightDeliveries, RequestLimits
from services.gateway.orders import DeliveryOrders, seal_delivery
from services.gateway.reporting import Reporter
from services.gateway.rules.payloads import SENDERS
from services.gateway.rules.rules import Triggers
from services.gateway.run_starter import PrefectRunStarter, prefect_run_reader
from services.gateway.settings import senders_without_secret

_log = logging.getLogger("ratchet.gateway")

MAX_CONNECTIONS = 256
"""Maximum open connections; further ones get 503, so memory is bounded."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address; port 0 chooses a free one."""
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
    """Serve until stopped. Work in progress finishes first; pending deliveries stay in the inbox."""
    secret_store, in_flight = SecretStore(), InFlightDeliveries()
    stop, accepted, decided = threading.Event(), threading.Event(), threading.Event()
    for sender in senders_without_secret(triggers, secret_store):
        names = ", ".join(triggers.senders[sender].secrets)
        _log.warning("%s: every delivery is refused, because no secret is set (%s)", sender, names)
    idle, read_run = in_flight.wait_until_idle, prefect_run_reader()
    repositories = open_repository_cache(state)
    dispatcher = Dispatcher(
        inbox, triggers, PrefectRunStarter(), repositories, secret_store, wait_until_idle=idle,
        sign_order=DeliveryOrders(env),
    )  # fmt: skip
    reporter = Reporter(inbox, triggers, secret_store, read_run, wait_until_idle=idle)
    context = create_context(env, open_store(state), on_decision=decided.set, secret_store=secret_store)
    resumer = RunResumer(lambda: env().approvals(), resume_suspended)
    threads = [
        threading.Thread(target=dispatcher.run, args=(stop, accepted), name="dispatcher", daemon=True),
        threading.Thread(target=reporter.run, args=(stop,), name="reporter", daemon=True),
        threading.Thread(target=resumer.run, args=(stop, decided), name="resumer", daemon=True),
    ]
    for thread in threads:
        thread.start()
    host, port = listener.getsockname()[:2]
    print_text(f"gateway on http://{host}:{port}", flush=True)
    settings = env().gateway
    router = create_router(context)
    app = create_app(
        inbox, triggers, secret_store, limits, accepted.set, in_flight, router, addresses=settings.addresses,
        seal=lambda delivery: seal_delivery(env(), delivery, triggers.senders[SENDERS[delivery.sender]].secrets),
    )  # fmt: skip
    try:
        uvicorn.Server(uvicorn_config(app, settings.trusted_proxies)).run(sockets=[listener])
    finally:
        stop.set()
        accepted.set()
        decided.set()
        for thread in threads:
            thread.join(timeout=5)


def uvicorn_config(app: FastAPI, trusted_proxies: Sequence[IPvAnyNetwork] = ()) -> uvicorn.Config:
    """Return uvicorn's settings: bounded connections, and no access log, so that clients cannot fill the disk.

    A client's address, which limits and notes use, comes from X-Forwarded-For only when one of the proxies sends it.
    """
    return uvicorn.Config(
        app,
        http=HeaderTimeoutProtocol,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=[str(network) for network in trusted_proxies],  # instead of $FORWARDED_ALLOW_IPS
        access_log=False,
        log_level="warning",
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
    )

"""Put the desk together: its file in the state folder, its pages and its API behind one router."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fastapi import APIRouter

from blocks.environment import Environment
from deployments.secret_store import Vault
from services.gateway.approvals.accounts import Accounts
from services.gateway.approvals.api import Api
from services.gateway.approvals.pages import Pages
from services.gateway.approvals.passwords import Cost
from services.gateway.approvals.people import Desk
from services.gateway.approvals.provider_pages import ProviderPages
from services.gateway.approvals.sessions import Sessions
from services.gateway.approvals.store import Store

THREADS = 4
"""So many people are served at once; the others wait, and deliveries of git hosts do not."""


def store_below(state: Path) -> Store:
    """Return the desk's file of a state folder."""
    return Store(state / "gateway" / "desk.db")


def open_desk(
    world: Callable[[], Environment],
    store: Store,
    woken: Callable[[], None] = lambda: None,
    vault: Vault | None = None,
    cost: Cost | None = None,
) -> Desk:
    """Return a desk over its file. `woken` is called when somebody has decided."""
    accounts = Accounts(store, cost)
    return Desk(world, store, accounts, Sessions(store, accounts), woken, (vault or Vault()).value)


def router_of(desk: Desk) -> APIRouter:
    """Return the paths of the desk."""
    router, pool = APIRouter(), ThreadPoolExecutor(THREADS, "desk")
    pages = Pages(desk)
    pages.mount(router, pool)
    ProviderPages(desk, pages).mount(router, pool)
    Api(desk).mount(router, pool)
    return router

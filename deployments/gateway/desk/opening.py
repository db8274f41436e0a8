"""Put the desk together: its file in the state folder, its pages and its API behind one router."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fastapi import APIRouter

from blocks.environment import Environment
from deployments.gateway.desk.accounts import Accounts
from deployments.gateway.desk.api import Api
from deployments.gateway.desk.pages import Pages
from deployments.gateway.desk.passwords import Cost
from deployments.gateway.desk.people import Desk
from deployments.gateway.desk.provider_pages import ProviderPages
from deployments.gateway.desk.sessions import Sessions
from deployments.gateway.desk.store import Store
from deployments.gateway.vault import Vault

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

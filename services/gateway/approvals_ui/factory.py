"""Put the desk together: its file in the state folder, its pages and its API behind one router."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fastapi import APIRouter

from blocks.environment import Environment
from deployments.secret_store import SecretStore
from services.gateway.approvals_ui.accounts import Accounts
from services.gateway.approvals_ui.api import ApprovalsApi
from services.gateway.approvals_ui.oidc_pages import OidcPages
from services.gateway.approvals_ui.pages import Pages
from services.gateway.approvals_ui.passwords import ScryptCost
from services.gateway.approvals_ui.sessions import Sessions
from services.gateway.approvals_ui.store import ApprovalsStore
from services.gateway.approvals_ui.users import ApprovalsContext

THREADS = 4
"""So many people are served at once; the others wait, and deliveries of git hosts do not."""


def open_store(state: Path) -> ApprovalsStore:
    """Return the desk's file of a state folder."""
    return ApprovalsStore(state / "gateway" / "desk.db")


def create_context(
    env: Callable[[], Environment],
    store: ApprovalsStore,
    on_decision: Callable[[], None] = lambda: None,
    vault: SecretStore | None = None,
    cost: ScryptCost | None = None,
) -> ApprovalsContext:
    """Return a desk over its file. `on_decision` is called when somebody has decided."""
    accounts = Accounts(store, cost)
    return ApprovalsContext(
        env, store, accounts, Sessions(store, accounts), on_decision, (vault or SecretStore()).value
    )


def create_router(desk: ApprovalsContext) -> APIRouter:
    """Return the paths of the desk."""
    router, pool = APIRouter(), ThreadPoolExecutor(THREADS, "desk")
    pages = Pages(desk)
    pages.mount(router, pool)
    OidcPages(desk, pages).mount(router, pool)
    ApprovalsApi(desk).add_routes(router, pool)
    return router

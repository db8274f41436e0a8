"""Build the approvals UI: its SQLite file, its pages and its API, in one router."""

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
"""Threads for requests to the approvals UI. Webhook deliveries use other threads, so they never wait for these."""


def open_store(state: Path) -> ApprovalsStore:
    """Open the accounts and sessions of a state folder."""
    return ApprovalsStore(state / "gateway" / "accounts.db")


def create_context(
    env: Callable[[], Environment],
    store: ApprovalsStore,
    on_decision: Callable[[], None] = lambda: None,
    secret_store: SecretStore | None = None,
    cost: ScryptCost | None = None,
) -> ApprovalsContext:
    """Return the context of the approvals UI over its file. `on_decision` is called after each decision."""
    accounts = Accounts(store, cost)
    return ApprovalsContext(
        env, store, accounts, Sessions(store, accounts), on_decision, (secret_store or SecretStore()).value
    )


def create_router(context: ApprovalsContext) -> APIRouter:
    """Return the routes of the pages and of the API."""
    router, pool = APIRouter(), ThreadPoolExecutor(THREADS, "approvals-ui")
    pages = Pages(context)
    pages.mount(router, pool)
    OidcPages(context, pages).mount(router, pool)
    ApprovalsApi(context).add_routes(router, pool)
    return router

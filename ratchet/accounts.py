"""Accounts for the approvals page. A password is typed, or the first line of standard input; never an argument."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import typer

from blocks.environment import Environment
from deployments.state import state_folder
from services.gateway.approvals_ui.accounts import Accounts
from services.gateway.approvals_ui.factory import open_store
from services.gateway.settings import EnvironmentReader
from tasks.shared.rules.refusal import Refusal


def accounts() -> Accounts:
    """Return the accounts of the state folder."""
    return Accounts(open_store(state_folder()))


def added(name: str, roles: Sequence[str], environment: str) -> str:
    """Make an account, or give one another password and other roles; return what to tell.

    Raises:
        Refusal: a role that there is not, no name, no role, or a password that is too short.
    """
    check_roles(EnvironmentReader(environment)(), roles)
    made = accounts().add(name, _password(), roles, datetime.now(UTC))
    return f"{made.name} may sign in, with {', '.join(made.roles)}"


def accounts_text(accounts: Accounts) -> str:
    """Return a line for each account."""
    lines = [
        f"{each.name:<40} {', '.join(each.roles):<30} {'disabled' if each.disabled else ''}".rstrip()
        for each in accounts.list_all()
    ]
    return "\n".join(lines) or "there is no account: nobody can sign in with a password"


def check_roles(env: Environment, roles: Sequence[str]) -> None:
    """Refuse a role that means nothing in this environment: with it nobody gets in."""
    known = env.gateway.permissions_by_role
    for role in roles:
        if role not in known:
            remedy = f"There are: {', '.join(known)}; [gateway.roles] in the environment's file names them."
            raise Refusal("there is no such role", where="--role", value=role, remedy=remedy)


def _password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt="Once more"))
    return sys.stdin.readline().rstrip("\r\n")

"""Password accounts of the approvals UI. The password is typed or read from standard input; never an argument."""

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


def add_account(name: str, roles: Sequence[str], environment: str) -> str:
    """Create an account, or set a new password and new roles of an existing one; return a message.

    Raises:
        Refusal: an unknown role, no name, no role, or a password that is too short.
    """
    check_roles(EnvironmentReader(environment)(), roles)
    account = accounts().add(name, _password(), roles, datetime.now(UTC))
    return f"{account.name} may sign in, with {', '.join(account.roles)}"


def accounts_text(accounts: Accounts) -> str:
    """Return a line for each account."""
    lines = [
        f"{each.name:<40} {', '.join(each.roles):<30} {'disabled' if each.disabled else ''}".rstrip()
        for each in accounts.list_all()
    ]
    return "\n".join(lines) or "there are no accounts: nobody can sign in with a password"


def check_roles(env: Environment, roles: Sequence[str]) -> None:
    """Refuse a role that this environment does not define: it would give no permission."""
    known = env.gateway.permissions_by_role
    for role in roles:
        if role not in known:
            remedy = f"Known roles: {', '.join(known)}; see [gateway.permissions_by_role] in the environment's file."
            raise Refusal("there is no such role", where="--role", value=role, remedy=remedy)


def _password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt="Repeat the password"))
    return sys.stdin.readline().rstrip("\r\n")

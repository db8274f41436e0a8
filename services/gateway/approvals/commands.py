"""Accounts for the approvals page: `python -m services.gateway account add NAME --role ROLE | list | disable NAME`.

The password is asked for on the terminal, or read as the first line of standard input; it is never an argument.
`add` for a name that is there gives it another password and other roles. Roles are those of [gateway.roles].
"""

import argparse
import getpass
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from blocks.environment import Environment
from deployments.state import state_folder
from services.gateway.approvals.accounts import Accounts
from services.gateway.approvals.opening import store_below
from services.gateway.settings import World
from tasks.shared.rules.refusal import Refusal


def run(arguments: Sequence[str]) -> int:
    """Run `account …`. Raises Refusal, PortError or OSError when it cannot be done."""
    options = _options(arguments)
    accounts = Accounts(store_below(state_folder()))
    if options.what == "list":
        print(listing(accounts))
    elif options.what == "disable":
        accounts.disable(options.name)
        print(f"{options.name} cannot sign in any more, and is signed out")
    else:
        check_roles(World(options.environment)(), options.role)
        made = accounts.add(options.name, _password(), options.role, datetime.now(UTC))
        print(f"{made.name} may sign in, with {', '.join(made.roles)}")
    return 0


def listing(accounts: Accounts) -> str:
    """Return a line for each account."""
    lines = [
        f"{each.name:<40} {', '.join(each.roles):<30} {'disabled' if each.disabled else ''}".rstrip()
        for each in accounts.all()
    ]
    return "\n".join(lines) or "there is no account: nobody can sign in with a password"


def check_roles(world: Environment, roles: Sequence[str]) -> None:
    """Refuse a role that means nothing in this environment: with it nobody gets in."""
    known = world.gateway.roles
    for role in roles:
        if role not in known:
            remedy = f"There are: {', '.join(known)}; [gateway.roles] in the environment's file names them."
            raise Refusal("there is no such role", where="--role", value=role, remedy=remedy)


def _password() -> str:
    """Return the password, typed twice on a terminal, else the first line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass("Password: ")
    if first != getpass.getpass("Once more: "):
        raise Refusal("the two passwords are not the same", where="password", remedy="Try again.")
    return first


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m services.gateway account", description=__doc__, formatter_class=raw
    )
    parser.add_argument("what", choices=["add", "list", "disable"])
    parser.add_argument("name", nargs="?", default="", help="how the person signs: an e-mail address is best")
    parser.add_argument("--role", action="append", default=[], help="a role of [gateway.roles]; may be given again")
    parser.add_argument("--environment", default="local", help="the environment whose roles count")
    return parser.parse_args(arguments)

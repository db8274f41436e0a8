"""Who is at the desk: signed in or not, with which roles, and what those let them do."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from blocks.common.gateway import May
from blocks.environment import Environment
from deployments.secret_store import Vault
from services.gateway.approvals.accounts import Account, Accounts, NotSignedIn, TooManyAttempts
from services.gateway.approvals.sessions import Kind, Session, Sessions
from services.gateway.approvals.store import Store
from services.gateway.approvals.web import Denied
from tasks.shared.trust import people_of

_log = logging.getLogger("ratchet.desk")

NO_ROLE = "Nothing here is for you: none of your roles is known. Ask whoever runs this environment for one."


@dataclass(frozen=True)
class Visitor:
    """Somebody who has proved who they are; `roles` are those that the sign-in proved."""

    session: Session
    roles: tuple[str, ...]
    may: May

    @property
    def name(self) -> str:
        """The name under which they sign."""
        return self.session.name

    @property
    def how(self) -> str:
        """How they proved who they are, as the ledger has it."""
        via = self.session.via
        return "signed in by password" if via == "password" else f"signed in at {via}"


@dataclass(frozen=True)
class Desk:
    """What the page and the API work with. `world` returns the environment by its file as it is now.

    `woken` is called when somebody has decided; `secret_of` returns the value of a secret by its name.
    """

    world: Callable[[], Environment]
    store: Store
    accounts: Accounts
    sessions: Sessions
    woken: Callable[[], None] = lambda: None
    secret_of: Callable[[str], str] = lambda name: Vault().value(name)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def session(self, kind: Kind, token: str) -> Session | None:
        """Return the session of a token, or None."""
        return self.sessions.find(kind, token, self.world().gateway, self.clock()) if token else None

    def visitor(self, session: Session | None) -> Visitor:
        """Return who this is.

        Raises:
            Denied: nobody has signed in (401), or nothing is known that they may do (403).
        """
        if session is None:
            raise Denied(401, "Sign in first.")
        world = self.world()
        proved = _roles(world, session)
        people, known = people_of(world), world.gateway.roles
        may = {known[role] for role in people.roles(session.name) | set(proved) if role in known}
        if not may or people.barred(session.name):
            raise Denied(403, NO_ROLE)
        return Visitor(session, proved, "decide" if "decide" in may else "look")


def by_password(desk: Desk, name: str, password: str, address: str) -> Account:
    """Return the account of a name and password whose owner may do something here.

    Raises:
        Denied: in the same words, whether it is the name or the password that is wrong.
    """
    if not desk.world().gateway.passwords:
        raise Denied(403, "Nobody signs in with a password here.")
    try:
        account = desk.accounts.check(name, password, address, desk.clock())
    except TooManyAttempts as cause:
        _log.warning("too many failed attempts to sign in, the last from %s", address)
        raise Denied(429, "Too many attempts have failed. Wait a quarter of an hour.") from cause
    except NotSignedIn as cause:
        _log.info("a failed attempt to sign in, from %s", address)
        raise Denied(401, "Name or password is not right.") from cause
    desk.visitor(Session("", account.name, "password", account.roles))
    _log.info("%r signed in by password, from %s", account.name, address)
    return account


def _roles(world: Environment, session: Session) -> tuple[str, ...]:
    """Return the roles that a sign-in proved: an account's own, or those that the provider's groups stand for."""
    if session.via == "password" or world.gateway.oidc is None:
        return session.groups
    table = world.gateway.oidc.roles
    return tuple(sorted({table[group] for group in session.groups if group in table}))

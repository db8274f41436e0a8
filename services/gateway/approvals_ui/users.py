"""Who is at the desk: signed in or not, with which roles, and what those let them do."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from blocks.common.gateway_settings import Permission
from blocks.environment import Environment
from deployments.secret_store import SecretStore
from services.gateway.approvals_ui.accounts import Account, Accounts, SignInFailed, TooManyAttempts
from services.gateway.approvals_ui.sessions import Session, SessionKind, Sessions
from services.gateway.approvals_ui.store import ApprovalsStore
from services.gateway.approvals_ui.web import RequestError
from tasks.shared.trust import environment_people

_log = logging.getLogger("ratchet.desk")

NO_ROLE_MESSAGE = "Nothing here is for you: none of your roles is known. Ask whoever runs this environment for one."


@dataclass(frozen=True)
class SignedInUser:
    """Somebody who has proved who they are; `roles` are those that the sign-in proved."""

    session: Session
    roles: tuple[str, ...]
    permission: Permission

    @property
    def name(self) -> str:
        """The name under which they sign."""
        return self.session.name

    @property
    def sign_in_method(self) -> str:
        """How they proved who they are, as the ledger has it."""
        via = self.session.sign_in_via
        return "signed in by password" if via == "password" else f"signed in at {via}"


@dataclass(frozen=True)
class ApprovalsContext:
    """What the page and the API work with. `current_environment` returns the environment by its file as it is now.

    `on_decision` is called when somebody has decided; `read_secret` returns the value of a secret by its name.
    """

    current_environment: Callable[[], Environment]
    store: ApprovalsStore
    accounts: Accounts
    sessions: Sessions
    on_decision: Callable[[], None] = lambda: None
    read_secret: Callable[[str], str] = lambda name: SecretStore().value(name)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def find_session(self, kind: SessionKind, token: str) -> Session | None:
        """Return the session of a token, or None."""
        return self.sessions.find(kind, token, self.current_environment().gateway, self.clock()) if token else None

    def require_user(self, session: Session | None) -> SignedInUser:
        """Return who this is.

        Raises:
            Denied: nobody has signed in (401), or nothing is known that they may do (403).
        """
        if session is None:
            raise RequestError(401, "Sign in first.")
        env = self.current_environment()
        proved = _verified_roles(env, session)
        people, known = environment_people(env), env.gateway.permissions_by_role
        may = {known[role] for role in people.roles_of(session.name) | set(proved) if role in known}
        if not may or people.is_barred(session.name):
            raise RequestError(403, NO_ROLE_MESSAGE)
        return SignedInUser(session, proved, "decide" if "decide" in may else "look")


def sign_in_with_password(desk: ApprovalsContext, name: str, password: str, address: str) -> Account:
    """Return the account of a name and password whose owner may do something here.

    Raises:
        Denied: in the same words, whether it is the name or the password that is wrong.
    """
    if not desk.current_environment().gateway.allow_passwords:
        raise RequestError(403, "Nobody signs in with a password here.")
    try:
        account = desk.accounts.authenticate(name, password, address, desk.clock())
    except TooManyAttempts as cause:
        _log.warning("too many failed attempts to sign in, the last from %s", address)
        raise RequestError(429, "Too many attempts have failed. Wait a quarter of an hour.") from cause
    except SignInFailed as cause:
        _log.info("a failed attempt to sign in, from %s", address)
        raise RequestError(401, "Name or password is not right.") from cause
    desk.require_user(Session("", account.name, "password", account.roles))
    _log.info("%r signed in by password, from %s", account.name, address)
    return account


def _verified_roles(env: Environment, session: Session) -> tuple[str, ...]:
    """Return the roles that a sign-in proved: an account's own, or those that the provider's groups stand for."""
    if session.sign_in_via == "password" or env.gateway.oidc is None:
        return session.groups
    table = env.gateway.oidc.role_by_group
    return tuple(sorted({table[group] for group in session.groups if group in table}))

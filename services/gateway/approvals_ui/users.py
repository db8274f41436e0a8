"""The signed-in user: identity, roles and permission."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from blocks.common.gateway_settings import Permission
from blocks.environment import Environment
from deployments.secret_store import SecretStore
from services.gateway.approvals_ui.accounts import Account, Accounts, ScryptCost, SignInFailed, TooManyAttempts
from services.gateway.approvals_ui.sessions import Session, SessionKind, Sessions
from services.gateway.approvals_ui.store import ApprovalsStore
from services.gateway.approvals_ui.web import RequestError
from tasks.shared.trust import environment_people

_log = logging.getLogger("ratchet.approvals_ui")

NO_ROLE_MESSAGE = "You have no access: none of your roles is known here. Ask the owner of this environment for a role."


@dataclass(frozen=True)
class SignedInUser:
    """A user with a proved identity; `roles` are those that the sign-in proved."""

    session: Session
    roles: tuple[str, ...]
    permission: Permission

    @property
    def name(self) -> str:
        """The name under which the user signs decisions."""
        return self.session.name

    @property
    def sign_in_method(self) -> str:
        """How the user proved their identity, as recorded in the ledger."""
        via = self.session.sign_in_via
        return "signed in by password" if via == "password" else f"signed in at {via}"


@dataclass(frozen=True)
class ApprovalsContext:
    """What the pages and the API share.

    `current_environment` returns the environment as its file is now; `on_decision` is called after each decision;
    `read_secret` returns the value of a secret by its name.
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
        """Return the user of a session.

        Raises:
            RequestError: nobody has signed in (401), or the user has no permission here (403).
        """
        if session is None:
            raise RequestError(401, "Sign in first.")
        env = self.current_environment()
        proved = _verified_roles(env, session)
        people, known = environment_people(env), env.gateway.permissions_by_role
        may = {known[role] for role in people.roles_of(session.name) | set(proved) if role in known}
        if not may or people.is_revoked(session.name):
            raise RequestError(403, NO_ROLE_MESSAGE)
        return SignedInUser(session, proved, "decide" if "decide" in may else "view")


def create_context(
    env: Callable[[], Environment],
    store: ApprovalsStore,
    on_decision: Callable[[], None] = lambda: None,
    secret_store: SecretStore | None = None,
    cost: ScryptCost | None = None,
) -> ApprovalsContext:
    """Return the context of the approvals page over its file. `on_decision` is called after each decision."""
    accounts, secrets = Accounts(store, cost), secret_store or SecretStore()
    return ApprovalsContext(env, store, accounts, Sessions(store, accounts), on_decision, secrets.value)


def sign_in_with_password(context: ApprovalsContext, name: str, password: str, address: str) -> Account:
    """Return the account of a name and password, if its owner has a permission here.

    Raises:
        RequestError: the sign-in failed; the message is the same for a wrong name and a wrong password.
    """
    if not context.current_environment().gateway.allow_passwords:
        raise RequestError(403, "Signing in with a password is switched off here.")
    try:
        account = context.accounts.authenticate(name, password, address, context.clock())
    except TooManyAttempts as cause:
        _log.warning("too many failed attempts to sign in, the last from %s", address)
        raise RequestError(429, "Too many attempts have failed. Wait 15 minutes.") from cause
    except SignInFailed as cause:
        _log.info("a failed attempt to sign in, from %s", address)
        raise RequestError(401, "Name or password is wrong.") from cause
    context.require_user(Session("", account.name, "password", account.roles))
    _log.info("%r signed in by password, from %s", account.name, address)
    return account


def _verified_roles(env: Environment, session: Session) -> tuple[str, ...]:
    """Return the roles that a sign-in proved: those of the account, or those that the provider's groups map to."""
    if session.sign_in_via == "password" or env.gateway.oidc is None:
        return session.groups
    table = env.gateway.oidc.role_by_group
    return tuple(sorted({table[group] for group in session.groups if group in table}))

"""The signed-in user of a request: identity, roles and permission; their cookies, tokens and forms.

A router of the gateway calls `context.signed_in(request)` for a page or `context.signed_in(request, "api")` for a
program, and `context.check_form` before it does what a form of a page asks for.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from argon2 import PasswordHasher
from fastapi import Response

from blocks.common.gateway_settings import Permission
from blocks.environment import Environment
from deployments.secret_store import SecretStore
from services.gateway.approvals_ui.accounts import Account, Accounts, SignInFailed, TooManyAttempts
from services.gateway.approvals_ui.sessions import Session, SessionKind, Sessions
from services.gateway.approvals_ui.store import ApprovalsStore
from services.gateway.approvals_ui.web import RequestError, UiRequest
from tasks.shared.trust import environment_people

_log = logging.getLogger("ratchet.approvals_ui")

SESSION_COOKIE = "ratchet-session"
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

    def signed_in(self, request: UiRequest, kind: SessionKind = "page") -> SignedInUser:
        """Return the user who sends the request: by the cookie of a page, or by the bearer token of the API.

        Raises:
            RequestError: nobody has signed in (401), or the user has no permission here (403).
        """
        return self.require_user(self.find_session(request, kind))

    def find_session(self, request: UiRequest, kind: SessionKind = "page") -> Session | None:
        """Return the session of a request, or None."""
        if kind == "page":
            token = self.cookie(request, SESSION_COOKIE)
        else:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            token = token.strip() if scheme.lower() == "bearer" else ""
        return self.sessions.find(kind, token, self.current_environment().gateway, self.clock()) if token else None

    def check_form(self, session: Session, request: UiRequest) -> dict[str, str]:
        """Return the fields of a form of a page. Raises RequestError unless it is a form of that session."""
        form = request.form_fields()
        if is_cross_site(request) or not self.sessions.is_form_token(session.key, form.get("token", "")):
            raise RequestError(
                403,
                "This form is out of date, or was not sent from this page. Nothing was done: go back and try again.",
            )
        return form

    def cookie(self, request: UiRequest, name: str) -> str:
        """Return the value of a cookie, "" without one."""
        return request.cookies.get(self._cookie_name(name), "")

    def set_cookie(
        self, response: Response, name: str, value: str, seconds: int, site: Literal["strict", "lax"] = "strict"
    ) -> None:
        """Set a cookie that only the gateway's own pages send and no script reads; `seconds` of 0 removes it."""
        response.set_cookie(
            self._cookie_name(name), value, seconds, secure=self._is_https, httponly=True, samesite=site
        )

    def _cookie_name(self, name: str) -> str:
        """Return a cookie's full name. With https the prefix `__Host-` limits the cookie to this host and to https."""
        return f"__Host-{name}" if self._is_https else name

    @property
    def _is_https(self) -> bool:
        return self.current_environment().gateway.address.startswith("https://")

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
    hasher: PasswordHasher | None = None,
) -> ApprovalsContext:
    """Return the context of the approvals page over its file. `on_decision` is called after each decision."""
    accounts, secrets = Accounts(store, hasher), secret_store or SecretStore()
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


def is_cross_site(request: UiRequest) -> bool:
    """Whether the browser says that a page of another site, or of another port of this host, sent the request."""
    return request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}


def _verified_roles(env: Environment, session: Session) -> tuple[str, ...]:
    """Return the roles that a sign-in proved: those of the account, or those that the provider's groups map to."""
    if session.sign_in_via == "password" or env.gateway.oidc is None:
        return session.groups
    table = env.gateway.oidc.role_by_group
    return tuple(sorted({table[group] for group in session.groups if group in table}))

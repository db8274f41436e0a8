"""Sign in with an identity provider: redirect to it, and accept its callback from the same browser only."""

import hashlib
import hmac
import logging
import secrets
from concurrent.futures import ThreadPoolExecutor

from fastapi import APIRouter, Response

from blocks.common.gateway_settings import OpenIdConnect
from deployments.secret_store import SecretUnavailable
from runtime.digests import text_digest
from services.gateway.approvals_ui.oidc import IdentityNotVerified, Provider
from services.gateway.approvals_ui.pages import Pages, own_path
from services.gateway.approvals_ui.sessions import Session
from services.gateway.approvals_ui.users import ApprovalsContext
from services.gateway.approvals_ui.web import RequestError, UiRequest, add_route, redirect
from services.gateway.limits import client_address

_log = logging.getLogger("ratchet.approvals_ui")

SIGN_IN_PATH = "/sign-in/provider"
STATE_COOKIE, PENDING_SIGN_IN_SECONDS, MAX_PENDING_SIGN_INS = "ratchet-oidc-state", 600, 5_000
"""The cookie of a pending sign-in, its lifetime in seconds, and the maximum number of pending sign-ins."""

SIGN_IN_FAILED = "Your organisation's sign-in failed. Try again; if it fails again, the gateway's log shows the reason."


class OidcPages:
    """Handlers of the redirect to the provider and of its callback."""

    def __init__(self, context: ApprovalsContext, pages: Pages) -> None:
        self._context, self._pages = context, pages
        self._secret = context.store.secret("pending sign-ins")
        self._cached_provider: tuple[OpenIdConnect, str, Provider] | None = None

    def mount(self, router: APIRouter, pool: ThreadPoolExecutor) -> None:
        """Add the routes."""
        add_route(router, pool, "GET", SIGN_IN_PATH, self.redirect_to_provider, self._pages.error_page)
        add_route(router, pool, "GET", f"{SIGN_IN_PATH}/callback", self.callback, self._pages.error_page)

    def redirect_to_provider(self, call: UiRequest) -> Response:
        """Redirect the browser to the provider, with a state that ties the callback to this browser."""
        provider, next_path = self._provider(), own_path(call.query.get("next", ""))
        state, browser = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        now = self._context.clock().timestamp()
        self._context.store.write(
            ("DELETE FROM pending_sign_ins WHERE ends_at < ?", (now,)),
            ("DELETE FROM pending_sign_ins WHERE rowid IN "
             "(SELECT rowid FROM pending_sign_ins ORDER BY ends_at DESC LIMIT -1 OFFSET ?)",
             (MAX_PENDING_SIGN_INS - 1,)),
            ("INSERT INTO pending_sign_ins VALUES (?, ?, ?)",
             (_state_digest(state, browser, provider.rules.issuer), next_path, now + PENDING_SIGN_IN_SECONDS)),
        )  # fmt: skip
        try:
            address = provider.authorization_url(
                state, self._derive("nonce", state, browser), self._derive("verifier", state, browser)
            )
        except IdentityNotVerified as cause:
            _log.warning("nobody can sign in at %s: %s", provider.rules.issuer, cause)
            return self._pages.sign_in_form(
                call, 503, "Your organisation's sign-in is unavailable at the moment.", next_path
            )
        response = redirect(address)
        # lax: the browser would not send a strict cookie when the provider redirects it back
        self._context.set_cookie(response, STATE_COOKIE, browser, PENDING_SIGN_IN_SECONDS, "lax")
        return response

    def callback(self, call: UiRequest) -> Response:
        """Start a session for the identity that the provider proves."""
        provider, context = self._provider(), self._context
        issuer, address, query = provider.rules.issuer, client_address(call), call.query
        state, browser = query.get("state", ""), context.cookie(call, STATE_COOKIE)
        next_path = self._take_pending(state, browser, issuer)
        try:
            if next_path is None:
                raise IdentityNotVerified(
                    "the callback does not belong to a sign-in of this browser, or is repeated or late"
                )
            code = provider.check_callback(query)
            secret = context.read_secret(provider.rules.client_secret) if provider.rules.client_secret else ""
            nonce, verifier = self._derive("nonce", state, browser), self._derive("verifier", state, browser)
            identity = provider.exchange_code(code, nonce, verifier, secret)
        except (IdentityNotVerified, SecretUnavailable) as cause:
            _log.warning("a sign-in at %s failed, from %s: %s", issuer, address, cause)
            response = self._pages.sign_in_form(call, 401, SIGN_IN_FAILED, next_path or "/approvals")
        else:
            context.require_user(Session("", identity.name, issuer, identity.groups))
            _log.info("%r signed in at %s, from %s", identity.name, issuer, address)
            response = self._pages.start_session(call, identity.name, issuer, identity.groups, next_path, via_page=True)
        context.set_cookie(response, STATE_COOKIE, "", 0, "lax")
        return response

    def _take_pending(self, state: str, browser: str, issuer: str) -> str | None:
        """Consume the pending sign-in and return its target page; None when there is none."""
        found = self._context.store.rows(
            "DELETE FROM pending_sign_ins WHERE digest = ? AND ends_at > ? RETURNING next_path",
            (_state_digest(state, browser, issuer), self._context.clock().timestamp()),
        )
        return str(found[0]["next_path"]) if found else None

    def _provider(self) -> Provider:
        """Return the provider of the current configuration. Raises RequestError when there is none."""
        gateway = self._context.current_environment().gateway
        if gateway.oidc is None:
            raise RequestError(404, "No identity provider is configured here.")
        if not gateway.address:
            raise RequestError(503, "[gateway] address is not set, so the identity provider cannot redirect back.")
        cached = self._cached_provider
        if cached is None or cached[:2] != (gateway.oidc, gateway.address):
            provider = Provider(gateway.oidc, f"{gateway.address}{SIGN_IN_PATH}/callback", self._context.clock)
            self._cached_provider = cached = gateway.oidc, gateway.address, provider
        return cached[2]

    def _derive(self, what: str, state: str, browser: str) -> str:
        """Derive a value that only this gateway can compute. It is not stored, so nobody can read it."""
        message = f"{what}\n{state}\n{browser}".encode(errors="surrogatepass")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


def _state_digest(state: str, browser: str, issuer: str) -> str:
    return text_digest(f"{state}\n{browser}\n{issuer}", "surrogatepass")

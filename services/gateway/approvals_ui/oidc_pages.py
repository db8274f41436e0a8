"""Sign in at an identity provider: go there, and come back with a code that this browser alone can have asked for."""

import hashlib
import hmac
import logging
import secrets
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from fastapi import APIRouter

from blocks.common.gateway_settings import OpenIdConnect
from deployments.secret_store import SecretUnavailable
from runtime.digests import text_digest
from services.gateway.approvals_ui.oidc import IdentityNotVerified, Provider
from services.gateway.approvals_ui.pages import Pages, own_path
from services.gateway.approvals_ui.sessions import Session
from services.gateway.approvals_ui.users import ApprovalsContext
from services.gateway.approvals_ui.web import RequestError, UiRequest, UiResponse, add_route, redirect

_log = logging.getLogger("ratchet.desk")

SIGN_IN_PATH = "/sign-in/provider"
STATE_COOKIE, PENDING_SIGN_IN_SECONDS, MAX_PENDING_SIGN_INS = "ratchet-errand", 600, 5_000
"""The cookie of a browser that is on its way; for how long it may be; how many are at once."""

SIGN_IN_FAILED = "Your organisation's sign-in did not succeed. Try again; if it stays so, the gateway's log says why."


class OidcPages:
    """Handlers for the way to the provider and back."""

    def __init__(self, desk: ApprovalsContext, pages: Pages) -> None:
        self._desk, self._pages = desk, pages
        self._secret = desk.store.secret("errands")
        self._cached_provider: tuple[OpenIdConnect, str, Provider] | None = None
        self._lock = Lock()

    def mount(self, router: APIRouter, pool: ThreadPoolExecutor) -> None:
        """Add the paths."""
        add_route(router, pool, "GET", SIGN_IN_PATH, self.redirect_to_provider, self._pages.error_page)
        add_route(router, pool, "GET", f"{SIGN_IN_PATH}/callback", self.callback, self._pages.error_page)

    def redirect_to_provider(self, call: UiRequest) -> UiResponse:
        """Send the browser to the provider, with what will tell its answer from anybody else's."""
        provider, wanted = self._provider(), own_path(call.query.get("next", ""))
        state, browser = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        now = self._desk.clock().timestamp()
        self._desk.store.write(
            ("DELETE FROM errands WHERE ends_at < ?", (now,)),
            ("DELETE FROM errands WHERE rowid IN (SELECT rowid FROM errands ORDER BY ends_at DESC LIMIT -1 OFFSET ?)",
             (MAX_PENDING_SIGN_INS - 1,)),
            ("INSERT INTO errands VALUES (?, ?, ?)", (_state_digest(state, browser), wanted, now + PENDING_SIGN_IN_SECONDS)),
        )  # fmt: skip
        try:
            address = provider.authorization_url(
                state, self._derive("nonce", state, browser), self._verifier(state, browser)
            )
        except IdentityNotVerified as cause:
            _log.warning("nobody can sign in at %s: %s", provider.rules.issuer, cause)
            return self._pages.sign_in_form(
                call, 503, "Your organisation's sign-in cannot be reached just now.", wanted
            )
        # Lax: a strict cookie would not come along when the provider sends the browser back
        return redirect(address).with_cookies(
            self._pages.set_cookie(STATE_COOKIE, browser, PENDING_SIGN_IN_SECONDS, site="Lax")
        )

    def callback(self, call: UiRequest) -> UiResponse:
        """Begin a session for whoever the provider proves it to be."""
        provider, desk = self._provider(), self._desk
        state, browser = call.query.get("state", ""), call.cookies.get(self._pages.cookie_name(STATE_COOKIE), "")
        expired_cookie = self._pages.set_cookie(STATE_COOKIE, "", 0, site="Lax")
        wanted = self._take_pending(state, browser)
        try:
            if wanted is None:
                raise IdentityNotVerified("the answer is to no question of this browser, or came twice or late")
            code = provider.check_callback(call.query)
            secret = desk.read_secret(provider.rules.client_secret) if provider.rules.client_secret else ""
            nonce, verifier = self._derive("nonce", state, browser), self._verifier(state, browser)
            proved = provider.exchange_code(code, nonce, verifier, secret)
        except (IdentityNotVerified, SecretUnavailable) as cause:
            _log.warning("a sign-in at %s failed, from %s: %s", provider.rules.issuer, call.client_address, cause)
            return self._pages.sign_in_form(call, 401, SIGN_IN_FAILED, wanted or "/approvals").with_cookies(
                expired_cookie
            )
        desk.require_user(Session("", proved.name, provider.rules.issuer, proved.groups))
        _log.info("%r signed in at %s, from %s", proved.name, provider.rules.issuer, call.client_address)
        begun = self._pages.start_session(
            call, proved.name, provider.rules.issuer, proved.groups, wanted or "", via_page=True
        )
        return begun.with_cookies(expired_cookie)

    def _take_pending(self, state: str, browser: str) -> str | None:
        """Return where the errand was to lead, once; None when there is none."""
        if not state or not browser:
            return None
        digest, now = _state_digest(state, browser), self._desk.clock().timestamp()
        found = self._desk.store.rows("SELECT wanted FROM errands WHERE digest = ? AND ends_at > ?", (digest, now))
        taken = self._desk.store.write(("DELETE FROM errands WHERE digest = ?", (digest,)))
        return str(found[0]["wanted"]) if found and taken == 1 else None

    def _provider(self) -> Provider:
        """Return the provider by the configuration as it is now. Raises Denied when there is none."""
        gateway = self._desk.current_environment().gateway
        if gateway.oidc is None:
            raise RequestError(404, "There is no identity provider here.")
        if not gateway.address:
            raise RequestError(503, "[gateway] address is not set, so the identity provider cannot send anybody back.")
        with self._lock:
            if self._cached_provider is None or self._cached_provider[:2] != (gateway.oidc, gateway.address):
                made = Provider(gateway.oidc, f"{gateway.address}{SIGN_IN_PATH}/callback", self._desk.clock)
                self._cached_provider = gateway.oidc, gateway.address, made
            return self._cached_provider[2]

    def _verifier(self, state: str, browser: str) -> str:
        return self._derive("verifier", state, browser)

    def _derive(self, what: str, state: str, browser: str) -> str:
        """Return a value that only this gateway can know: nothing of it is kept, so nothing of it can be read."""
        said = f"{what}\n{state}\n{browser}".encode(errors="surrogatepass")
        return hmac.new(self._secret, said, hashlib.sha256).hexdigest()


def _state_digest(state: str, browser: str) -> str:
    return text_digest(f"{state}\n{browser}", "surrogatepass")

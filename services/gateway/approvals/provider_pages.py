"""Sign in at an identity provider: go there, and come back with a code that this browser alone can have asked for."""

import hashlib
import hmac
import logging
import secrets
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from fastapi import APIRouter

from blocks.common.gateway import OpenIdConnect
from deployments.secret_store import Unreadable
from runtime.digests import text_digest
from services.gateway.approvals.oidc import NotProved, Provider
from services.gateway.approvals.pages import Pages, ours
from services.gateway.approvals.people import Desk
from services.gateway.approvals.sessions import Session
from services.gateway.approvals.web import Call, Denied, Reply, add, see

_log = logging.getLogger("ratchet.desk")

PATH = "/sign-in/provider"
ERRAND, ERRAND_SECONDS, MOST_ERRANDS = "ratchet-errand", 600, 5_000
"""The cookie of a browser that is on its way; for how long it may be; how many are at once."""

FAILED = "Your organisation's sign-in did not succeed. Try again; if it stays so, the gateway's log says why."


class ProviderPages:
    """Handlers for the way to the provider and back."""

    def __init__(self, desk: Desk, pages: Pages) -> None:
        self._desk, self._pages = desk, pages
        self._secret = desk.store.secret("errands")
        self._known: tuple[OpenIdConnect, str, Provider] | None = None
        self._lock = Lock()

    def mount(self, router: APIRouter, pool: ThreadPoolExecutor) -> None:
        """Add the paths."""
        add(router, pool, "GET", PATH, self.go, self._pages.refuse)
        add(router, pool, "GET", f"{PATH}/callback", self.come_back, self._pages.refuse)

    def go(self, call: Call) -> Reply:
        """Send the browser to the provider, with what will tell its answer from anybody else's."""
        provider, wanted = self._provider(), ours(call.query.get("next", ""))
        state, browser = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        now = self._desk.clock().timestamp()
        self._desk.store.write(
            ("DELETE FROM errands WHERE ends_at < ?", (now,)),
            ("DELETE FROM errands WHERE rowid IN (SELECT rowid FROM errands ORDER BY ends_at DESC LIMIT -1 OFFSET ?)",
             (MOST_ERRANDS - 1,)),
            ("INSERT INTO errands VALUES (?, ?, ?)", (_digest(state, browser), wanted, now + ERRAND_SECONDS)),
        )  # fmt: skip
        try:
            address = provider.address(state, self._derived("nonce", state, browser), self._verifier(state, browser))
        except NotProved as cause:
            _log.warning("nobody can sign in at %s: %s", provider.rules.issuer, cause)
            return self._pages.form(call, 503, "Your organisation's sign-in cannot be reached just now.", wanted)
        # Lax: a strict cookie would not come along when the provider sends the browser back
        return see(address).with_cookies(self._pages.set_cookie(ERRAND, browser, ERRAND_SECONDS, site="Lax"))

    def come_back(self, call: Call) -> Reply:
        """Begin a session for whoever the provider proves it to be."""
        provider, desk = self._provider(), self._desk
        state, browser = call.query.get("state", ""), call.cookies.get(self._pages.cookie(ERRAND), "")
        gone = self._pages.set_cookie(ERRAND, "", 0, site="Lax")
        wanted = self._taken(state, browser)
        try:
            if wanted is None:
                raise NotProved("the answer is to no question of this browser, or came twice or late")
            code = provider.check_answer(call.query)
            secret = desk.secret_of(provider.rules.client_secret) if provider.rules.client_secret else ""
            nonce, verifier = self._derived("nonce", state, browser), self._verifier(state, browser)
            proved = provider.exchange(code, nonce, verifier, secret)
        except (NotProved, Unreadable) as cause:
            _log.warning("a sign-in at %s failed, from %s: %s", provider.rules.issuer, call.address, cause)
            return self._pages.form(call, 401, FAILED, wanted or "/approvals").with_cookies(gone)
        desk.visitor(Session("", proved.name, provider.rules.issuer, proved.groups))
        _log.info("%r signed in at %s, from %s", proved.name, provider.rules.issuer, call.address)
        begun = self._pages.begin(call, proved.name, provider.rules.issuer, proved.groups, wanted or "", onward=True)
        return begun.with_cookies(gone)

    def _taken(self, state: str, browser: str) -> str | None:
        """Return where the errand was to lead, once; None when there is none."""
        if not state or not browser:
            return None
        digest, now = _digest(state, browser), self._desk.clock().timestamp()
        found = self._desk.store.rows("SELECT wanted FROM errands WHERE digest = ? AND ends_at > ?", (digest, now))
        taken = self._desk.store.write(("DELETE FROM errands WHERE digest = ?", (digest,)))
        return str(found[0]["wanted"]) if found and taken == 1 else None

    def _provider(self) -> Provider:
        """Return the provider by the configuration as it is now. Raises Denied when there is none."""
        gateway = self._desk.world().gateway
        if gateway.oidc is None:
            raise Denied(404, "There is no identity provider here.")
        if not gateway.address:
            raise Denied(503, "[gateway] address is not set, so the identity provider cannot send anybody back.")
        with self._lock:
            if self._known is None or self._known[:2] != (gateway.oidc, gateway.address):
                made = Provider(gateway.oidc, f"{gateway.address}{PATH}/callback", self._desk.clock)
                self._known = gateway.oidc, gateway.address, made
            return self._known[2]

    def _verifier(self, state: str, browser: str) -> str:
        return self._derived("verifier", state, browser)

    def _derived(self, what: str, state: str, browser: str) -> str:
        """Return a value that only this gateway can know: nothing of it is kept, so nothing of it can be read."""
        said = f"{what}\n{state}\n{browser}".encode(errors="surrogatepass")
        return hmac.new(self._secret, said, hashlib.sha256).hexdigest()


def _digest(state: str, browser: str) -> str:
    return text_digest(f"{state}\n{browser}", "surrogatepass")

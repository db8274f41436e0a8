"""Server-side sessions of signed-in people, with a limited lifetime, so that each can be revoked."""

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from sqlite3 import Row
from typing import Literal

from blocks.common.gateway_settings import GatewaySettings
from runtime.digests import text_digest
from services.gateway.approvals_ui.accounts import Accounts
from services.gateway.approvals_ui.store import ApprovalsStore

SessionKind = Literal["page", "api"]

_LAST_USE_SAVE_SECONDS = 30.0  # minimum time between two updates of a session's last use


@dataclass(frozen=True)
class Session:
    """A signed-in person: the name, how they signed in ("password" or the provider's issuer), and their groups.

    For a password account the groups are its current roles. `key` identifies the session; it is not the token.
    """

    key: str
    name: str
    sign_in_via: str
    groups: tuple[str, ...]


class Sessions:
    """All sessions. A token for the pages is not valid for the API, and the reverse."""

    def __init__(self, store: ApprovalsStore, accounts: Accounts) -> None:
        self._store, self._accounts = store, accounts
        self._secret = store.secret("forms")

    def start(
        self, kind: SessionKind, name: str, via: str, groups: Sequence[str], rules: GatewaySettings, now: datetime
    ) -> tuple[str, datetime]:
        """Start a session. Return its token, which is not stored, and the time at which it ends at the latest."""
        token, at = secrets.token_urlsafe(32), now.timestamp()
        ends = at + rules.session_hours * 3600
        self._store.write(
            ("DELETE FROM sessions WHERE ends_at < ?", (at,)),
            ("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?)",
             (_token_digest(token), kind, name, via, json.dumps(list(groups)), at, ends)),
        )  # fmt: skip
        return token, datetime.fromtimestamp(ends, now.tzinfo)

    def find(self, kind: SessionKind, token: str, rules: GatewaySettings, now: datetime) -> Session | None:
        """Return the session of a token; None when there is none, it has ended, or its account is disabled."""
        at, digest = now.timestamp(), _token_digest(token)
        rows = self._store.rows("SELECT * FROM sessions WHERE digest = ? AND kind = ?", (digest, kind))
        if not rows:
            return None
        row = rows[0]
        if not row["seen_at"] - 300 <= at < min(row["ends_at"], row["seen_at"] + rules.idle_minutes * 60):
            return None  # it has ended; or the clock was set back, and it would never end
        if (groups := current_groups(row, self._accounts, rules)) is None:
            return None
        if at - row["seen_at"] > _LAST_USE_SAVE_SECONDS:
            self._store.write(("UPDATE sessions SET seen_at = ? WHERE digest = ?", (at, digest)))
        return Session(digest, row["name"], row["via"], groups)

    def end(self, key: str) -> None:
        """End a session: its token is no longer valid."""
        self._store.write(("DELETE FROM sessions WHERE digest = ?", (key,)))

    def form_token(self, key: str) -> str:
        """Return the token of the forms of a session (or of a browser before it signs in), against forged forms."""
        return hmac.new(self._secret, f"form {key}".encode(), hashlib.sha256).hexdigest()

    def is_form_token(self, key: str, token: str) -> bool:
        """Whether the token is the form token of that session."""
        return hmac.compare_digest(self.form_token(key).encode(), token.encode(errors="surrogatepass"))


def current_groups(row: Row, accounts: Accounts, rules: GatewaySettings) -> tuple[str, ...] | None:
    """Return the groups or roles of the person of a stored session or token; None when their sign-in counts no more.

    The roles of an account are its current ones; those of an identity provider are from the sign-in.
    """
    if row["via"] == "password":
        account = accounts.find(row["name"])
        return None if account is None or account.disabled or not rules.allow_passwords else account.roles
    if rules.oidc is None or rules.oidc.issuer != row["via"]:
        return None
    return tuple(json.loads(row["groups_"]))


def _token_digest(token: str) -> str:
    return text_digest(token, "surrogatepass")

"""Password accounts, for environments without an identity provider. Initially there are none."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from runtime.digests import text_digest
from services.gateway.approvals_ui.passwords import ScryptCost, check_password_length, hash_password, verify_password
from services.gateway.approvals_ui.store import ApprovalsStore
from tasks.approval.rules.people import normalized_name
from tasks.shared.rules.refusal import Refusal

ATTEMPT_WINDOW_SECONDS = 15 * 60.0
"""Seconds during which a failed attempt counts."""
MAX_FAILURES_BY_NAME, MAX_FAILURES_BY_ADDRESS = 8, 40
"""Maximum failed attempts within the window, per name and per client address; further attempts are refused."""

_END_SESSIONS = "DELETE FROM sessions WHERE via = 'password' AND name IN (SELECT name FROM accounts WHERE key = ?)"


@dataclass(frozen=True)
class Account:
    """A person who may sign in with a password, and the roles that the sign-in gives."""

    name: str
    roles: tuple[str, ...]
    disabled: bool


class SignInFailed(Exception):
    """The sign-in failed: the same error for a wrong password, an unknown name and a disabled account."""


class TooManyAttempts(SignInFailed):
    """Too many attempts failed; raised for names without an account, too."""


class Accounts:
    """The accounts of one approvals UI."""

    def __init__(self, store: ApprovalsStore, cost: ScryptCost | None = None) -> None:
        self._store, self._cost = store, cost or ScryptCost()

    def add(self, name: str, password: str, roles: Sequence[str], now: datetime) -> Account:
        """Create an account, or set a new password and new roles of an existing one and end its sessions.

        Raises:
            Refusal: the name has fewer than 2 letters, there is no role, or the password is too short.
        """
        key, display_name = normalized_name(name), " ".join(name.split())
        if len(key) < 2 or len(display_name) > 200:
            raise Refusal("an account needs a name of 2 to 200 letters", where="account", value=name)
        if not roles:
            raise Refusal("an account needs a role", where=f"account {name}", remedy="Give one: --role approver.")
        check_password_length(password)
        password_hash, roles_json = hash_password(password, self._cost), json.dumps(sorted(set(roles)))
        self._store.write(
            (_END_SESSIONS, (key,)),
            (
                "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, 0, ?)",
                (key, display_name, password_hash, roles_json, now.timestamp()),
            ),
        )
        return Account(display_name, tuple(json.loads(roles_json)), disabled=False)

    def disable(self, name: str) -> None:
        """Disable an account and end its sessions. Raises Refusal when there is no such account."""
        key = normalized_name(name)
        changed = self._store.write(
            (_END_SESSIONS, (key,)),
            ("UPDATE accounts SET disabled = 1 WHERE key = ?", (key,)),
        )
        if not changed:
            known = ", ".join(account.name for account in self.list_all()) or "none"
            raise Refusal("there is no such account", where="account", value=name, remedy=f"Known accounts: {known}.")

    def list_all(self) -> tuple[Account, ...]:
        """Return the accounts, sorted by name."""
        rows = self._store.rows("SELECT name, roles, disabled FROM accounts ORDER BY key")
        return tuple(Account(row["name"], tuple(json.loads(row["roles"])), bool(row["disabled"])) for row in rows)

    def find(self, name: str) -> Account | None:
        """Return the account of that name, disabled or not; None when there is none."""
        return next(
            (account for account in self.list_all() if normalized_name(account.name) == normalized_name(name)), None
        )

    def authenticate(self, name: str, password: str, address: str, now: datetime) -> Account:
        """Check a name and a password and return the account. The check takes as long when the name is unknown.

        Raises:
            TooManyAttempts: too many attempts have failed under this name or from this address.
            SignInFailed: there is no such account, it is disabled, or the password is wrong.
        """
        by_name = "name " + text_digest(normalized_name(name[:1000]), "surrogatepass")
        by_address = f"address {address[:100]}"
        self._check_attempts(by_name, by_address, now)
        rows = self._store.rows(
            "SELECT name, password, disabled FROM accounts WHERE key = ?", (normalized_name(name[:1000]),)
        )
        matches = verify_password(password, rows[0]["password"] if rows else self._dummy_hash)
        account = self.find(name) if rows and matches else None
        if account is None or account.disabled:
            at = now.timestamp()
            self._store.write(
                ("DELETE FROM failures WHERE at < ?", (at - ATTEMPT_WINDOW_SECONDS,)),
                ("INSERT INTO failures VALUES (?, ?), (?, ?)", (by_name, at, by_address, at)),
            )
            raise SignInFailed("name or password is wrong")
        self._store.write(("DELETE FROM failures WHERE what = ?", (by_name,)))
        return account

    def _check_attempts(self, by_name: str, by_address: str, now: datetime) -> None:
        for what, limit in ((by_name, MAX_FAILURES_BY_NAME), (by_address, MAX_FAILURES_BY_ADDRESS)):
            count = "SELECT count(*) AS failed FROM failures WHERE what = ? AND at > ?"
            if self._store.rows(count, (what, now.timestamp() - ATTEMPT_WINDOW_SECONDS))[0]["failed"] >= limit:
                raise TooManyAttempts("too many attempts have failed; wait 15 minutes")

    @cached_property
    def _dummy_hash(self) -> str:
        """The hash that is checked when the name is unknown, so that the response takes the same time."""
        return hash_password(self._store.secret("nobody's password").hex(), self._cost)

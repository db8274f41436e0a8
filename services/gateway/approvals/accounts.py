"""Accounts with passwords, where there is no identity provider, as on the embedded default. At first there is none."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from runtime.digests import text_digest
from services.gateway.approvals.passwords import Cost, check_password, hash_password, is_password
from services.gateway.approvals.store import Store
from tasks.approval.rules.people import identity
from tasks.shared.rules.refusal import Refusal

WINDOW = 15 * 60.0
"""Seconds for which a failed attempt counts."""
MOST_BY_NAME, MOST_BY_ADDRESS = 8, 40
"""With so many failed attempts within the window nobody signs in under that name, or from that address."""


_END_SESSIONS = "DELETE FROM sessions WHERE via = 'password' AND name IN (SELECT name FROM accounts WHERE key = ?)"


@dataclass(frozen=True)
class Account:
    """A person who may sign in with a password, and the roles that this proves."""

    name: str
    roles: tuple[str, ...]
    disabled: bool


class NotSignedIn(Exception):
    """The one answer to a wrong password, an unknown name and a disabled account."""


class TooManyAttempts(NotSignedIn):
    """Too many attempts failed; the same is said of names that have no account."""


class Accounts:
    """The accounts of a desk."""

    def __init__(self, store: Store, cost: Cost | None = None) -> None:
        self._store, self._cost = store, cost or Cost()

    def add(self, name: str, password: str, roles: Sequence[str], now: datetime) -> Account:
        """Make an account, or give one that is there another password and other roles; its sessions end.

        Raises:
            Refusal: the name has fewer than 2 letters, there is no role, or the password is too short.
        """
        key, shown = identity(name), " ".join(name.split())
        if len(key) < 2 or len(shown) > 200:
            raise Refusal("an account needs a name of 2 to 200 letters", where="account", value=name)
        if not roles:
            raise Refusal("an account needs a role", where=f"account {name}", remedy="Give one: --role approver.")
        check_password(password)
        kept, given = hash_password(password, self._cost), json.dumps(sorted(set(roles)))
        self._store.write(
            (_END_SESSIONS, (key,)),
            ("INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, 0, ?)", (key, shown, kept, given, now.timestamp())),
        )
        return Account(shown, tuple(json.loads(given)), disabled=False)

    def disable(self, name: str) -> None:
        """Let nobody sign in under that name any more, and end its sessions. Raises Refusal when there is none."""
        key = identity(name)
        changed = self._store.write(
            (_END_SESSIONS, (key,)),
            ("UPDATE accounts SET disabled = 1 WHERE key = ?", (key,)),
        )
        if not changed:
            known = ", ".join(account.name for account in self.all()) or "none"
            raise Refusal("there is no such account", where="account", value=name, remedy=f"There are: {known}.")

    def all(self) -> tuple[Account, ...]:
        """Return the accounts by name."""
        found = self._store.rows("SELECT name, roles, disabled FROM accounts ORDER BY key")
        return tuple(Account(row["name"], tuple(json.loads(row["roles"])), bool(row["disabled"])) for row in found)

    def get(self, name: str) -> Account | None:
        """Return the account of that name, disabled or not."""
        return next((account for account in self.all() if identity(account.name) == identity(name)), None)

    def check(self, name: str, password: str, address: str, now: datetime) -> Account:
        """Return the account whose password this is; it takes as long when there is none.

        Raises:
            TooManyAttempts: under this name or from this address too many have failed.
            NotSignedIn: there is no such account, it is disabled, or the password is another one.
        """
        by_name = "name " + text_digest(identity(name[:1000]), "surrogatepass")
        by_address = f"address {address[:100]}"
        self._check_attempts(by_name, by_address, now)
        found = self._store.rows(
            "SELECT name, password, disabled FROM accounts WHERE key = ?", (identity(name[:1000]),)
        )
        kept = found[0]["password"] if found else self._nobodys
        right = is_password(password, kept)
        account = self.get(name) if found and right else None
        if account is None or account.disabled:
            at = now.timestamp()
            self._store.write(
                ("DELETE FROM failures WHERE at < ?", (at - WINDOW,)),
                ("INSERT INTO failures VALUES (?, ?), (?, ?)", (by_name, at, by_address, at)),
            )
            raise NotSignedIn("name or password is not right")
        self._store.write(("DELETE FROM failures WHERE what = ?", (by_name,)))
        return account

    def _check_attempts(self, by_name: str, by_address: str, now: datetime) -> None:
        for what, most in ((by_name, MOST_BY_NAME), (by_address, MOST_BY_ADDRESS)):
            count = "SELECT count(*) AS failed FROM failures WHERE what = ? AND at > ?"
            if self._store.rows(count, (what, now.timestamp() - WINDOW))[0]["failed"] >= most:
                raise TooManyAttempts("too many attempts have failed; wait a quarter of an hour")

    @cached_property
    def _nobodys(self) -> str:
        """What an unknown name's password is compared with: nobody has it."""
        return hash_password(self._store.secret("nobody's password").hex(), self._cost)

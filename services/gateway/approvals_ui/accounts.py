"""Password accounts, for environments without an identity provider. Initially there are none.

Passwords are stored as scrypt hashes (RFC 7914) with a random salt and the cost parameters.
"""

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from threading import Semaphore

from blocks.records.identity import mixed_script_word, normalized_name
from runtime.digests import text_digest
from services.gateway.approvals_ui.store import ApprovalsStore
from tasks.shared.rules.refusal import Refusal

MIN_LENGTH, MAX_LENGTH = 12, 256
"""Limits of a password's length in characters: shorter ones can be guessed, longer ones only cost time."""

_CONCURRENT_HASHES = Semaphore(2)  # each uses 32 MiB and a core: many attempts must not overload the machine

ATTEMPT_WINDOW_SECONDS = 15 * 60.0
"""Seconds during which a failed attempt counts."""
MAX_FAILURES_BY_NAME, MAX_FAILURES_BY_ADDRESS = 8, 40
"""Maximum failed attempts within the window, per name and per client address; further attempts are refused."""

_END_SESSIONS = "DELETE FROM sessions WHERE via = 'password' AND name IN (SELECT name FROM accounts WHERE key = ?)"


@dataclass(frozen=True)
class ScryptCost:
    """The cost of scrypt: 32 MiB and about 0.2 s per attempt, as OWASP recommends."""

    n: int = 2**15
    r: int = 8
    p: int = 3


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
    """The accounts of one approvals page."""

    def __init__(self, store: ApprovalsStore, cost: ScryptCost | None = None) -> None:
        self._store, self._cost = store, cost or ScryptCost()

    def add(self, name: str, password: str, roles: Sequence[str], now: datetime) -> Account:
        """Create an account, or set a new password and new roles of an existing one and end its sessions.

        Raises:
            Refusal: the name has fewer than 2 letters or a word of mixed scripts, there is no role, or the password is
                too short.
        """
        key, display_name = normalized_name(name), " ".join(name.split())
        if len(key) < 2 or len(display_name) > 200:
            raise Refusal("an account needs a name of 2 to 200 letters", where="account", value=name)
        if word := mixed_script_word(name):
            raise Refusal("the name mixes letters that look alike", where="account", value=word)
        if not roles:
            raise Refusal("an account needs a role", where=f"account {name}", remedy="Give one: --role approver.")
        _check_password_length(password)
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


def _check_password_length(password: str) -> None:
    """Refuse a password that is too short or too long."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        remedy = f"Use {MIN_LENGTH} to {MAX_LENGTH} characters, for example several unrelated words."
        raise Refusal("the password is too short or too long", where="password", remedy=remedy)


def hash_password(password: str, cost: ScryptCost | None = None) -> str:
    """Return the stored form of a password: `scrypt$n$r$p$salt$hash`."""
    cost, salt = cost or ScryptCost(), secrets.token_bytes(16)
    salt_text, hash_text = (base64.b64encode(part).decode() for part in (salt, _scrypt(password, salt, cost)))
    return f"scrypt${cost.n}${cost.r}${cost.p}${salt_text}${hash_text}"


def verify_password(password: str, stored_hash: str) -> bool:
    """Return whether the password matches the stored hash; the comparison takes constant time."""
    try:
        name, n, r, p, salt, digest = stored_hash.split("$")
        cost, expected = ScryptCost(int(n), int(r), int(p)), base64.b64decode(digest, validate=True)
        computed = _scrypt(password, base64.b64decode(salt, validate=True), cost)
    except (ValueError, binascii.Error):
        return False
    return name == "scrypt" and hmac.compare_digest(computed, expected)


def _scrypt(password: str, salt: bytes, cost: ScryptCost) -> bytes:
    text = unicodedata.normalize("NFKC", password).encode(errors="surrogatepass")
    with _CONCURRENT_HASHES:
        return hashlib.scrypt(text, salt=salt, n=cost.n, r=cost.r, p=cost.p, dklen=32, maxmem=256 * cost.n * cost.r)

"""Password accounts, for environments without an identity provider. Initially there are none.

Passwords are stored as Argon2id hashes (RFC 9106) with a random salt and the cost parameters. Hashes of earlier
releases (scrypt) are valid, and replaced when their owner signs in.
"""

import json
import unicodedata
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from threading import Semaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from blocks.records.identity import normalized_name
from runtime.digests import text_digest
from services.gateway.approvals_ui.store import ApprovalsStore
from tasks.approval.rules.names import check_person_name
from tasks.shared.rules.refusal import Refusal

MIN_LENGTH, MAX_LENGTH = 12, 256
"""Limits of a password's length in characters: shorter ones can be guessed, longer ones only cost time."""

_CONCURRENT_HASHES = Semaphore(2)  # each uses 64 MiB and a core: many attempts must not overload the machine

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
    """The accounts of one approvals page."""

    def __init__(self, store: ApprovalsStore, hasher: PasswordHasher | None = None) -> None:
        self._store, self._hasher = store, hasher or PasswordHasher()

    def add(self, name: str, password: str, roles: Sequence[str], now: datetime) -> Account:
        """Create an account, or set a new password and new roles of an existing one and end its sessions.

        Raises:
            Refusal: the name is no name of a person or has more than 200 letters, there is no role, or the password is
                too short.
        """
        display_name = check_person_name(name, "account")
        if len(display_name) > 200:
            raise Refusal("an account needs a name of at most 200 letters", where="account", value=name)
        key = normalized_name(name)
        if not roles:
            raise Refusal("an account needs a role", where=f"account {name}", remedy="Give one: --role approver.")
        if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
            remedy = f"Use {MIN_LENGTH} to {MAX_LENGTH} characters, for example several unrelated words."
            raise Refusal("the password is too short or too long", where="password", remedy=remedy)
        password_hash, roles_json = hash_password(password, self._hasher), json.dumps(sorted(set(roles)))
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
        account = self.find(name) if self._is_password(normalized_name(name[:1000]), password) else None
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

    def _is_password(self, key: str, password: str) -> bool:
        """Whether it is the account's password. If so, a hash of another kind than new ones is replaced."""
        stored = {row["key"]: str(row["password"]) for row in self._store.rows("SELECT key, password FROM accounts")}
        # one hash of each kind: the time tells neither whether there is an account, nor of which kind its hash is
        checked = (self._dummy_hash, *stored.values(), stored.get(key, self._dummy_hash))
        right = [each for each in {_kind(each): each for each in checked}.values() if verify_password(password, each)]
        if stored.get(key) not in right:
            return False
        if _kind(stored[key]) != _kind(self._dummy_hash):
            new = hash_password(password, self._hasher)
            self._store.write(
                ("UPDATE accounts SET password = ? WHERE key = ? AND password = ?", (new, key, stored[key]))
            )
        return True

    @cached_property
    def _dummy_hash(self) -> str:
        """The hash of a password that nobody has, of the kind of new hashes."""
        return hash_password(self._store.secret("nobody's password").hex(), self._hasher)


def _kind(stored_hash: str) -> str:
    """Return algorithm and cost of a stored hash."""
    return stored_hash.rsplit("$", 2)[0]


def hash_password(password: str, hasher: PasswordHasher) -> str:
    """Return the stored form of a password: `$argon2id$v=19$m=…,t=…,p=…$salt$hash`."""
    with _CONCURRENT_HASHES:
        return hasher.hash(_password_bytes(password))


def verify_password(password: str, stored_hash: str) -> bool:
    """Return whether the password matches the stored hash; the comparison takes constant time."""
    content = _password_bytes(password)
    try:
        with _CONCURRENT_HASHES:
            if not stored_hash.startswith("scrypt$"):
                return PasswordHasher().verify(stored_hash, content)
            n, r, p, *texts = stored_hash.split("$")[1:]  # RFC 7914, as earlier releases stored it
            salt, expected = (b64decode(text, validate=True) for text in texts)
            Scrypt(salt, len(expected), int(n), int(r), int(p)).verify(content, expected)
            return True
    except (ValueError, InvalidKey, VerificationError, InvalidHashError):
        return False


def _password_bytes(password: str) -> bytes:
    """Return the bytes that are hashed: the same for all ways to type a letter, with or without full width."""
    return unicodedata.normalize("NFKC", password).encode(errors="surrogatepass")

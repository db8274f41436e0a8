"""Password hashes: scrypt (RFC 7914) with a random salt and the cost parameters."""

import base64
import binascii
import hashlib
import hmac
import secrets
import unicodedata
from dataclasses import dataclass
from threading import Semaphore

from tasks.shared.rules.refusal import Refusal

MIN_LENGTH, MAX_LENGTH = 12, 256
"""Limits of a password's length in characters: shorter ones can be guessed, longer ones only cost time."""

_CONCURRENT_HASHES = Semaphore(2)  # each uses 32 MiB and a core: many attempts must not overload the machine


@dataclass(frozen=True)
class ScryptCost:
    """The cost of scrypt: 32 MiB and about 0.2 s per attempt, as OWASP recommends."""

    n: int = 2**15
    r: int = 8
    p: int = 3


def check_password_length(password: str) -> None:
    """Refuse a password that is too short or too long."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        remedy = f"Use {MIN_LENGTH} to {MAX_LENGTH} characters, for example several unrelated words."
        raise Refusal("the password is too short or too long", where="password", remedy=remedy)


def hash_password(password: str, cost: ScryptCost | None = None) -> str:
    """Return the stored form of a password: `scrypt$n$r$p$salt$hash`."""
    cost, salt = cost or ScryptCost(), secrets.token_bytes(16)
    return f"scrypt${cost.n}${cost.r}${cost.p}${_base64_text(salt)}${_base64_text(_scrypt(password, salt, cost))}"


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


def _base64_text(value: bytes) -> str:
    return base64.b64encode(value).decode()

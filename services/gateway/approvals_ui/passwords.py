"""Passwords as they are kept: scrypt (RFC 7914) with a salt of their own, and its cost beside it."""

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
"""Letters of a password: shorter ones are guessed, and longer ones only cost time."""

_CONCURRENT_HASHES = Semaphore(2)  # each takes 32 MiB and a core: who tries many passwords must not take the machine


@dataclass(frozen=True)
class ScryptCost:
    """What one attempt costs whoever tries: 32 MiB and about a fifth of a second, as OWASP recommends."""

    n: int = 2**15
    r: int = 8
    p: int = 3


def check_password_length(password: str) -> None:
    """Refuse a password that is too short or too long."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        remedy = f"Take {MIN_LENGTH} to {MAX_LENGTH} letters; a few words that do not belong together are good ones."
        raise Refusal("the password is too short or too long", where="password", remedy=remedy)


def hash_password(password: str, cost: ScryptCost | None = None) -> str:
    """Return what is kept of a password: `scrypt$n$r$p$salt$hash`."""
    cost, salt = cost or ScryptCost(), secrets.token_bytes(16)
    return f"scrypt${cost.n}${cost.r}${cost.p}${_base64_text(salt)}${_base64_text(_scrypt(password, salt, cost))}"


def verify_password(password: str, kept: str) -> bool:
    """Whether this is the password, in a time that does not tell by how much it is not."""
    try:
        name, n, r, p, salt, digest = kept.split("$")
        cost, expected = ScryptCost(int(n), int(r), int(p)), base64.b64decode(digest, validate=True)
        found = _scrypt(password, base64.b64decode(salt, validate=True), cost)
    except (ValueError, binascii.Error):
        return False
    return name == "scrypt" and hmac.compare_digest(found, expected)


def _scrypt(password: str, salt: bytes, cost: ScryptCost) -> bytes:
    said = unicodedata.normalize("NFKC", password).encode(errors="surrogatepass")
    with _CONCURRENT_HASHES:
        return hashlib.scrypt(said, salt=salt, n=cost.n, r=cost.r, p=cost.p, dklen=32, maxmem=256 * cost.n * cost.r)


def _base64_text(value: bytes) -> str:
    return base64.b64encode(value).decode()

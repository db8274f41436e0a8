"""Whether a delivery is from who it says: the raw body against the webhook's secrets, byte for byte, in constant time.

GitHub, Bitbucket: `sha256=` and the HMAC in hex. Gitea: the same without `sha256=`. GitLab: the secret itself in a
header, or the newer signing token (Standard Webhooks: an HMAC over id, time and body).
"""

import base64
import binascii
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from services.gateway.rules.payloads import Sender

Headers = Sequence[tuple[bytes, bytes]]

TOLERANCE_SECONDS = 300
"""How far the time that a sender signed may lie from ours, either way."""
SHORTEST_SECRET = 16
"""A webhook's secret of fewer bytes is not used: it could be guessed."""

_HEX = {
    "github": (b"x-hub-signature-256", b"sha256="),
    "bitbucket": (b"x-hub-signature", b"sha256="),
    "gitea": (b"x-gitea-signature", b""),
}
_SIGNING = b"whsec_"


class Forged(Exception):
    """The delivery proves nothing; the message is for our log alone, never for who sent it."""


@dataclass(frozen=True)
class Genuine:
    """A delivery that its sender signed. `signed_id` is the id when that is signed too, with the time; else ""."""

    signed_id: str = ""


def verify(sender: Sender, headers: Headers, body: bytes, secrets: Iterable[bytes], now: float) -> Genuine:
    """Return how the delivery proves itself, by any one of the secrets.

    Args:
        sender: which git host is said to have sent it.
        headers: names in lower case, and values, as they came.
        body: the body as it came.
        secrets: those of the webhook; several while one is being replaced.
        now: Unix time.

    Raises:
        Forged: it does not.
    """
    usable = [secret for secret in secrets if len(secret) >= SHORTEST_SECRET]
    if not usable:
        raise Forged("no secret is configured")
    if sender == "gitlab":
        return _gitlab(headers, body, usable, now)
    name, prefix = _HEX[sender]
    given = single(headers, name)
    expected = [prefix + hmac.new(secret, body, sha256).hexdigest().encode() for secret in usable]
    if not _one_of(given, expected):
        raise Forged(f"{name.decode()} does not fit the body")
    return Genuine()


def single(headers: Headers, name: bytes) -> bytes:
    """Return the one value of a header. Raises Forged when there is none, or more than one."""
    values = [value for key, value in headers if key == name]
    if len(values) != 1:
        raise Forged(f"{'more than one header' if values else 'no header'} {name.decode()}")
    return values[0]


def _gitlab(headers: Headers, body: bytes, secrets: Sequence[bytes], now: float) -> Genuine:
    signing = [secret for secret in secrets if secret.startswith(_SIGNING)]
    if any(key == b"webhook-signature" for key, _ in headers):
        return _standard(headers, body, signing, now)
    plain = [secret for secret in secrets if not secret.startswith(_SIGNING)]
    if not plain:
        raise Forged("the signing token's headers are missing")
    if not _one_of(single(headers, b"x-gitlab-token"), plain):
        raise Forged("x-gitlab-token is another one")
    return Genuine()


def _standard(headers: Headers, body: bytes, tokens: Iterable[bytes], now: float) -> Genuine:
    name, moment = single(headers, b"webhook-id"), single(headers, b"webhook-timestamp")
    given = single(headers, b"webhook-signature").split(b" ")
    keys = [key for token in tokens if (key := _key(token))]
    signed = b".".join((name, moment, body))
    expected = [b"v1," + base64.b64encode(hmac.new(key, signed, sha256).digest()) for key in keys]
    if len(given) > 10 or not any([_one_of(each, expected) for each in given]):
        raise Forged("webhook-signature does not fit id, time and body")
    if not moment.isdigit() or len(moment) > 12 or abs(int(moment) - now) > TOLERANCE_SECONDS:
        raise Forged("webhook-timestamp is too far from now")
    return Genuine(name.decode("latin-1"))


def _key(token: bytes) -> bytes:
    try:
        key = base64.b64decode(token.removeprefix(_SIGNING), validate=True)
    except binascii.Error:
        return b""
    return key if len(key) >= SHORTEST_SECRET else b""


def _one_of(given: bytes, expected: Iterable[bytes]) -> bool:
    return any([hmac.compare_digest(given, each) for each in expected])  # a list: all are compared

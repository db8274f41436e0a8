"""Verify webhook signatures: HMAC over the raw body, compared in constant time.

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
"""Maximum difference between a signed timestamp and our clock, in either direction."""
MIN_SECRET_BYTES = 16
"""A shorter secret is not used, because it could be guessed."""

_HMAC_HEADERS = {
    "github": (b"x-hub-signature-256", b"sha256="),
    "bitbucket": (b"x-hub-signature", b"sha256="),
    "gitea": (b"x-gitea-signature", b""),
}
_SIGNING_TOKEN_PREFIX = b"whsec_"


class InvalidSignature(Exception):
    """The signature is missing or not valid. The message is for our log only, never for the sender."""


@dataclass(frozen=True)
class VerifiedDelivery:
    """A delivery with a valid signature. `signed_id` is the id when the signature covers id and time, else ""."""

    signed_id: str = ""


def verify_delivery(
    sender: Sender, headers: Headers, body: bytes, secrets: Iterable[bytes], now: float
) -> VerifiedDelivery:
    """Verify a delivery against the webhook's secrets; any one is enough, as there are several while one is replaced.

    The names of `headers` are in lower case; `now` is Unix time.

    Raises:
        InvalidSignature: no secret fits, or the signature is missing.
    """
    usable = [secret for secret in secrets if len(secret) >= MIN_SECRET_BYTES]
    if not usable:
        raise InvalidSignature("no secret is configured")
    if sender == "gitlab":
        return _verify_gitlab(headers, body, usable, now)
    name, prefix = _HMAC_HEADERS[sender]
    signature = single_header(headers, name)
    expected = [prefix + hmac.new(secret, body, sha256).hexdigest().encode() for secret in usable]
    if not _matches_any(signature, expected):
        raise InvalidSignature(f"{name.decode()} does not match the body")
    return VerifiedDelivery()


def single_header(headers: Headers, name: bytes) -> bytes:
    """Return the only value of a header. Raises InvalidSignature when there is none, or more than one."""
    values = [value for key, value in headers if key == name]
    if len(values) != 1:
        raise InvalidSignature(f"{'more than one header' if values else 'no header'} {name.decode()}")
    return values[0]


def _verify_gitlab(headers: Headers, body: bytes, secrets: Sequence[bytes], now: float) -> VerifiedDelivery:
    signing = [secret for secret in secrets if secret.startswith(_SIGNING_TOKEN_PREFIX)]
    if any(key == b"webhook-signature" for key, _ in headers):
        return _verify_standard_webhook(headers, body, signing, now)
    plain = [secret for secret in secrets if not secret.startswith(_SIGNING_TOKEN_PREFIX)]
    if not plain:
        raise InvalidSignature("the signing token's headers are missing")
    if not _matches_any(single_header(headers, b"x-gitlab-token"), plain):
        raise InvalidSignature("x-gitlab-token does not match")
    return VerifiedDelivery()


def _verify_standard_webhook(headers: Headers, body: bytes, tokens: Iterable[bytes], now: float) -> VerifiedDelivery:
    name, moment = single_header(headers, b"webhook-id"), single_header(headers, b"webhook-timestamp")
    signatures = single_header(headers, b"webhook-signature").split(b" ")
    keys = [key for token in tokens if (key := _signing_key(token))]
    signed = b".".join((name, moment, body))
    expected = [b"v1," + base64.b64encode(hmac.new(key, signed, sha256).digest()) for key in keys]
    if len(signatures) > 10 or not any([_matches_any(each, expected) for each in signatures]):
        raise InvalidSignature("webhook-signature does not match id, time and body")
    if not moment.isdigit() or len(moment) > 12 or abs(int(moment) - now) > TOLERANCE_SECONDS:
        raise InvalidSignature("webhook-timestamp is too far from now")
    return VerifiedDelivery(name.decode("latin-1"))


def _signing_key(token: bytes) -> bytes:
    try:
        key = base64.b64decode(token.removeprefix(_SIGNING_TOKEN_PREFIX), validate=True)
    except binascii.Error:
        return b""
    return key if len(key) >= MIN_SECRET_BYTES else b""


def _matches_any(signature: bytes, expected: Iterable[bytes]) -> bool:
    return any([hmac.compare_digest(signature, each) for each in expected])  # a list, so that all are compared

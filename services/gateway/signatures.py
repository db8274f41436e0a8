"""Verify webhook signatures: HMAC over the raw body, computed while it arrives, compared in constant time.

GitHub, Bitbucket: `sha256=` and the HMAC in hex. Gitea: the same without `sha256=`. GitLab: the secret itself in a
header, or the newer signing token (Standard Webhooks: an HMAC over id, time and body).
"""

import base64
import binascii
import hmac
import re
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
_HEX_DIGEST = re.compile(rb"[0-9a-f]{64}")
_SIGNING_TOKEN_PREFIX = b"whsec_"


class InvalidSignature(Exception):
    """The signature is missing or not valid. The message is for our log only, never for the sender."""


@dataclass(frozen=True)
class VerifiedDelivery:
    """A delivery with a valid signature. `signed_id` is the id when the signature covers id and time, else ""."""

    signed_id: str = ""


class Verification:
    """The verification of one delivery, whose body arrives in pieces."""

    def __init__(self, macs: Sequence[hmac.HMAC], signatures: Sequence[bytes], fault: str, signed_id: str = "") -> None:
        self._macs, self._signatures, self._fault, self._signed_id = macs, signatures, fault, signed_id

    def update(self, piece: bytes) -> None:
        """Add the next piece of the body."""
        for mac in self._macs:
            mac.update(piece)

    def finish(self) -> VerifiedDelivery:
        """Return the verified delivery, after the whole body. Raises InvalidSignature when no secret fits."""
        expected = [mac.digest() for mac in self._macs]
        if self._macs and not any([_matches_any(each, expected) for each in self._signatures]):
            raise InvalidSignature(self._fault)
        return VerifiedDelivery(self._signed_id)


def begin_verification(sender: Sender, headers: Headers, secrets: Iterable[bytes], now: float) -> Verification:
    """Begin to verify a delivery against the webhook's secrets. One has to fit; several are valid during a replacement.

    The names of `headers` are in lower case; `now` is Unix time.

    Raises:
        InvalidSignature: the headers alone show that the signature is missing or not valid, whatever the body is.
    """
    usable = [secret for secret in secrets if len(secret) >= MIN_SECRET_BYTES]
    if not usable:
        raise InvalidSignature("no secret is configured")
    if sender == "gitlab":
        return _begin_gitlab(headers, usable, now)
    name, prefix = _HMAC_HEADERS[sender]
    fault = f"{name.decode()} does not match the body"
    signature = single_header(headers, name)
    if not signature.startswith(prefix) or not _HEX_DIGEST.fullmatch(signature.removeprefix(prefix)):
        raise InvalidSignature(fault)
    macs = [hmac.new(secret, digestmod=sha256) for secret in usable]
    return Verification(macs, [bytes.fromhex(signature.removeprefix(prefix).decode())], fault)


def verify_delivery(
    sender: Sender, headers: Headers, body: bytes, secrets: Iterable[bytes], now: float
) -> VerifiedDelivery:
    """Verify a delivery whose body is here. Raises InvalidSignature; see `begin_verification`."""
    verification = begin_verification(sender, headers, secrets, now)
    verification.update(body)
    return verification.finish()


def single_header(headers: Headers, name: bytes) -> bytes:
    """Return the only value of a header. Raises InvalidSignature when there is none, or more than one."""
    values = [value for key, value in headers if key == name]
    if len(values) != 1:
        raise InvalidSignature(f"{'more than one header' if values else 'no header'} {name.decode()}")
    return values[0]


def _begin_gitlab(headers: Headers, secrets: Sequence[bytes], now: float) -> Verification:
    signing = [secret for secret in secrets if secret.startswith(_SIGNING_TOKEN_PREFIX)]
    if any(key == b"webhook-signature" for key, _ in headers):
        return _begin_standard_webhook(headers, signing, now)
    plain = [secret for secret in secrets if not secret.startswith(_SIGNING_TOKEN_PREFIX)]
    if not plain:
        raise InvalidSignature("the signing token's headers are missing")
    if not _matches_any(single_header(headers, b"x-gitlab-token"), plain):
        raise InvalidSignature("x-gitlab-token does not match")
    return Verification((), (), "")


def _begin_standard_webhook(headers: Headers, tokens: Iterable[bytes], now: float) -> Verification:
    fault = "webhook-signature does not match id, time and body"
    name, moment = single_header(headers, b"webhook-id"), single_header(headers, b"webhook-timestamp")
    signatures = [_standard_signature(each) for each in single_header(headers, b"webhook-signature").split(b" ")]
    keys = [key for token in tokens if (key := _signing_key(token))]
    if len(signatures) > 10 or not any(signatures) or not keys:
        raise InvalidSignature(fault)
    if not moment.isdigit() or len(moment) > 12 or abs(int(moment) - now) > TOLERANCE_SECONDS:
        raise InvalidSignature("webhook-timestamp is too far from now")
    macs = [hmac.new(key, b".".join((name, moment, b"")), sha256) for key in keys]
    return Verification(macs, signatures, fault, name.decode("latin-1"))


def _standard_signature(text: bytes) -> bytes:
    """Return the bytes of a signature like `v1,…`, or b"" when it is not written exactly so."""
    try:
        value = base64.b64decode(text.removeprefix(b"v1,"), validate=True)
    except binascii.Error:
        return b""
    return value if text == b"v1," + base64.b64encode(value) and len(value) == sha256().digest_size else b""


def _signing_key(token: bytes) -> bytes:
    try:
        key = base64.b64decode(token.removeprefix(_SIGNING_TOKEN_PREFIX), validate=True)
    except binascii.Error:
        return b""
    return key if len(key) >= MIN_SECRET_BYTES else b""


def _matches_any(signature: bytes, expected: Iterable[bytes]) -> bool:
    return any([hmac.compare_digest(signature, each) for each in expected])  # a list, so that all are compared

"""Keys that sign decisions and records (Ed25519) and models (ECDSA on P-256), and the public keys that are trusted.

A public key is written as one line: the base64 of its DER form (SubjectPublicKeyInfo), as between the lines
BEGIN and END of a PEM file. Its id is the first 16 hexadecimal digits of the SHA-256 of that form.
"""

import base64
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256

from runtime.digests import bytes_digest

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey
_P256 = "secp256r1"


class KeyProblem(ValueError):
    """A key cannot be used; the message names the key and the remedy."""


@dataclass(frozen=True)
class Signer:
    """A private key that signs. `head` is the file that records the last decision that it signed, or None."""

    key: PrivateKey
    head: Path | None = None

    @property
    def public_key_line(self) -> str:
        """The public key as one line."""
        return encode_public_key(self.key.public_key())

    @property
    def key_id(self) -> str:
        """The id of the public key."""
        return public_key_id(self.public_key_line)

    def sign(self, data: bytes) -> bytes:
        """Return the signature of the data."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(data)
        return self.key.sign(data, ec.ECDSA(SHA256()))


class Keyring:
    """The trusted public keys, by id. An empty keyring trusts nobody."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines: Mapping[str, str] = {
            public_key_id(line): line for line in lines if line and parse_public_key(line)
        }

    @property
    def lines(self) -> tuple[str, ...]:
        """The keys as lines, sorted."""
        return tuple(sorted(self._lines.values()))

    def __bool__(self) -> bool:
        """Whether any key is trusted."""
        return bool(self._lines)

    def verifies(self, wanted_id: str, signature: bytes, data: bytes) -> bool:
        """Whether the trusted key with the id `wanted_id` has signed the data."""
        line = self._lines.get(wanted_id)
        return line is not None and _line_has_signed(line, signature, data)


@lru_cache(maxsize=100_000)  # a process that reads a chain again verifies what is new alone
def _line_has_signed(line: str, signature: bytes, data: bytes) -> bool:
    return has_signed(parse_public_key(line), signature, data)


def has_signed(key: PublicKey, signature: bytes, data: bytes) -> bool:
    """Whether the key has signed the data with this signature."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        else:
            key.verify(signature, data, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def create_key(path: Path, kind: Literal["ed25519", "p256"]) -> None:
    """Create a private key in a file of mode 0600, unless the file exists. Two concurrent calls create one key."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key: PrivateKey = (
        ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    )
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as stream:
        stream.write(_pem(key))
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(beside, path)
    except FileExistsError:
        return
    finally:
        beside.unlink()


def load_signer(path: Path, head: Path | None = None, *, holder: str = "") -> Signer:
    """Read a private key. `holder` is a sentence about where the key is, for the message when it cannot be read.

    Raises:
        KeyProblem: there is no such file, users other than its owner may read it, or it contains no such key.
    """
    try:
        mode, pem = stat.S_IMODE(path.stat().st_mode), path.read_bytes()
    except OSError as cause:
        raise KeyProblem(f"signing key {path} cannot be read: {cause.strerror}. {holder}".rstrip()) from cause
    if mode & 0o077:
        raise KeyProblem(f"signing key {path} has mode {mode:04o}: others may read it. Run: chmod 600 {path}")
    return parse_signer(pem, str(path), head)


def parse_signer(pem: bytes, where: str, head: Path | None = None) -> Signer:
    """Return the signer of a PEM text. Raises KeyProblem if it contains neither an Ed25519 nor a P-256 key."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as cause:
        raise KeyProblem(f"signing key {where} is no private key in PEM without a password") from cause
    if not isinstance(key, PrivateKey) or _on_another_curve(key):
        raise KeyProblem(f"signing key {where} is {type(key).__name__}; Ed25519 and P-256 are known")
    return Signer(key, head)


def encode_public_key(key: PublicKey) -> str:
    """Return a public key as one line."""
    form = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(form).decode()


def public_pem(key: PublicKey) -> bytes:
    """Return a public key in PEM form."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@lru_cache(maxsize=256)
def parse_public_key(line: str) -> PublicKey:
    """Return the public key of a line. Raises KeyProblem if the line is not a public key."""
    try:
        key = serialization.load_der_public_key(base64.b64decode(line, validate=True))
    except (ValueError, TypeError) as cause:
        raise KeyProblem(
            f"{line[:40]!r} is no public key; write the base64 between BEGIN and END of its PEM"
        ) from cause
    if not isinstance(key, PublicKey) or _on_another_curve(key):
        raise KeyProblem(f"{line[:40]!r} is {type(key).__name__}; Ed25519 and P-256 are known")
    return key


def public_key_id(line: str) -> str:
    """Return the id of a public key."""
    return bytes_digest(base64.b64decode(line))[:16]


def _on_another_curve(key: PrivateKey | PublicKey) -> bool:
    return isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) and key.curve.name != _P256


def _pem(key: PrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())

"""Signs a folder (a model or an evidence pack), and verifies the signature before a file of the folder is used.

The format is OpenSSF's model signing 1.0 (https://github.com/sigstore/model-transparency): a Sigstore bundle with a
DSSE envelope over an in-toto statement that has the SHA-256 of every file, signed with a P-256 key. OpenSSF's tool
verifies our signatures, and this module verifies the tool's:

    model_signing verify key --signature model.sig --public-key key.pem model

The tool is not used here: it takes a second to import and brings thirty packages, for one call of `cryptography`. The
signature of a folder `model` is beside it, as `model.sig`.

Our statement also contains the model's permissions and the columns that identify a row, in `predicate.ratchet`, which
other verifiers ignore.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from runtime.digests import bytes_digest, file_digests
from runtime.files import write_text_atomically
from runtime.keys import KeyProblem, PublicKey, Signer, has_signed, parse_public_key, public_pem

_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


class UntrustedSignature(Exception):
    """No trusted key has signed exactly these files; the message gives the reason and the remedy."""


@dataclass(frozen=True)
class ModelPermissions:
    """What the signer allows a model beyond the defaults of `admission`; nothing by default.

    `kinds` are the kinds of the model's columns (`runtime.values`); empty for a model of an earlier release.
    """

    loaders: tuple[str, ...] = ()
    trusted_types: tuple[str, ...] = ()
    allow_custom_code: bool = False
    kinds: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RowKey:
    """The columns that identify a row of the model's data; "" for a column that the model does not have.

    Callers may send them beside the model's columns.
    """

    entity: str = ""
    time: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(name for name in (self.entity, self.time) if name)


NO_ROW_KEY = RowKey()
"""The row key of a model whose signer names none."""


@dataclass(frozen=True)
class SignedStatement:
    """A signed statement: SHA-256 by file, and the signer's statements about the model."""

    files: dict[str, str]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def permissions(self) -> ModelPermissions:
        """The permissions that the signer gives the model."""
        allow = self.about.get("allow", {})
        loaders, types = allow.get("loaders", ()), allow.get("trusted_types", ())
        code = allow.get("allow_custom_code") is True
        kinds = {str(name): str(kind) for name, kind in dict(self.about.get("kinds", {})).items()}
        return ModelPermissions(tuple(map(str, loaders)), tuple(map(str, types)), code, kinds)

    @property
    def row_key(self) -> RowKey:
        """The columns that identify a row; empty for a model that was signed before its signature named them."""
        names = self.about.get("row_key", {})
        return RowKey(str(names.get("entity") or ""), str(names.get("time") or ""))


def signature_file(folder: Path) -> Path:
    """Return the file with the signature of a folder."""
    return folder.with_name(f"{folder.name}.sig")


def sign_folder(folder: Path, signer: Signer, metadata: Mapping[str, Any]) -> Path:
    """Sign every file below `folder`, and write the signature beside it; return its path.

    Args:
        folder: a folder without links.
        signer: a P-256 key.
        metadata: signed as well: what the folder contains, and the model's permissions.
    """
    files = file_digests(folder)
    whole = bytes_digest(b"".join(map(bytes.fromhex, files.values())))
    statement = {
        "_type": _STATEMENT,
        "subject": [{"name": folder.name, "digest": {"sha256": whole}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": [{"name": name, "algorithm": "sha256", "digest": digest} for name, digest in files.items()],
            "ratchet": dict(metadata),
        },
    }
    payload = json.dumps(statement).encode()
    hint, signature = _hint(signer.key.public_key()), signer.sign(_pre_authenticated(payload))
    path = signature_file(folder)
    write_text_atomically(path, _bundle(_base64(payload), _base64(signature), hint))
    return path


def check_form(text: str) -> None:
    """Check that a signature's file is exactly as `sign_folder` writes it, so that nobody can change it unnoticed.

    Raises:
        UntrustedSignature: it is a bundle, but has another form than ours.
        ValueError, KeyError, TypeError: it is not a bundle.
    """
    bundle = json.loads(text)
    (signed,) = bundle["dsseEnvelope"]["signatures"]
    texts = bundle["dsseEnvelope"]["payload"], signed["sig"]
    exact = all(_base64(base64.b64decode(each, validate=True)) == each for each in texts)
    if not exact or _bundle(*texts, bundle["verificationMaterial"]["publicKey"]["hint"]) != text:
        raise UntrustedSignature("the signature's file was changed")


def _bundle(payload: str, signature: str, hint: str) -> str:
    """Return the text of a signature's file; payload and signature are in base64."""
    content = {
        "mediaType": _MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": payload,
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"sig": signature, "keyid": ""}],
        },
    }
    return json.dumps(content)


def verify_folder(folder: Path, keys: Sequence[str], signature: Path | None = None) -> SignedStatement:
    """Return the statement that a trusted key has signed over exactly the files in `folder`.

    Args:
        folder: the folder to verify.
        keys: the trusted public keys, each the base64 of its DER form.
        signature: the file of the signature; None: `model.sig` beside `model`.

    Raises:
        UntrustedSignature: no key or no signature, a signature of another key, or an added, removed or changed file.
    """
    where = signature or signature_file(folder)
    if not [key for key in keys if key]:
        raise UntrustedSignature("no key is pinned whose models may be loaded; pin one (signing.trusted_model_keys)")
    try:
        bundle = where.read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise UntrustedSignature(f"{folder.name} is not signed: {where} cannot be read; train it again") from None
    statement = _opened(bundle, keys)
    if problem := _file_differences(statement.files, _hashes(folder)):
        raise UntrustedSignature(f"{folder.name} is not what was signed: {problem}; do not load it")
    return statement


def _opened(bundle: str, keys: Sequence[str]) -> SignedStatement:
    """Return the statement of a bundle that a trusted key has signed. Raises UntrustedSignature."""
    try:
        content = json.loads(bundle)
        envelope = content["dsseEnvelope"]
        (signed,) = envelope["signatures"]
        payload, value = base64.b64decode(envelope["payload"], validate=True), base64.b64decode(signed["sig"])
        hint = content["verificationMaterial"]["publicKey"]["hint"]
        known = content["mediaType"] == _MEDIA_TYPE and envelope["payloadType"] == _PAYLOAD_TYPE
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UntrustedSignature("the signature is no bundle of one signature over an in-toto statement") from None
    key = next((key for key in map(_load_public_key, filter(None, keys)) if _hint(key) == hint), None)
    if not known or key is None:
        raise UntrustedSignature(f"the signature is by a key that is not pinned ({str(hint)[:16]}…)")
    if not has_signed(key, value, _pre_authenticated(payload)):
        raise UntrustedSignature("the signature is not one of the pinned key over this statement")
    return _parse_statement(payload)


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its relative path. Raises UntrustedSignature for a link."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            name = path.relative_to(folder).as_posix()
            raise UntrustedSignature(
                f"{folder.name} holds {name!r}, which is a link or no file; put the file itself there"
            )
    return file_digests(folder)


def _pre_authenticated(payload: bytes) -> bytes:
    """Return the bytes that are signed for a payload: DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)


def _hint(key: PublicKey) -> str:
    """Return the identifier of a key in a bundle: the SHA-256 of its PEM form."""
    return bytes_digest(public_pem(key))


def _load_public_key(line: str) -> PublicKey:
    try:
        key = parse_public_key(line)
    except KeyProblem as cause:
        raise UntrustedSignature(f"a pinned key cannot be used: {cause}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise UntrustedSignature(f"the pinned key {line[:24]}… is not of the curve P-256, which models are signed with")
    return key


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _parse_statement(payload: bytes) -> SignedStatement:
    try:
        statement = json.loads(payload)
        predicate = statement["predicate"]
        form = predicate["serialization"]
        plain = (form["method"], form["hash_type"], form.get("allow_symlinks", False)) == ("files", "sha256", False)
        resources = [(each["name"], each["digest"], each["algorithm"]) for each in predicate["resources"]]
        about = dict(predicate.get("ratchet", {}))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UntrustedSignature("what was signed is no statement about files") from None
    files = {str(name): str(digest) for name, digest, algorithm in resources if algorithm == "sha256"}
    if statement.get("predicateType") != _PREDICATE or not plain or len(files) != len(resources) or not files:
        raise UntrustedSignature("what was signed is not one SHA-256 for each file of a model")
    return SignedStatement(files, about)


def _file_differences(signed: dict[str, str], there: dict[str, str]) -> str:
    problems = {
        "missing": sorted(signed.keys() - there.keys()),
        "not signed": sorted(there.keys() - signed.keys()),
        "changed": sorted(name for name in signed.keys() & there.keys() if signed[name] != there[name]),
    }
    return "; ".join(f"{problem}: {', '.join(names[:5])}" for problem, names in problems.items() if names)

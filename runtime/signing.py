"""Sign a folder: a model, or an evidence pack. In the form of OpenSSF's model signing, which its own tool verifies.

`runtime/signature.py` says what the form is, and verifies it: that runs where models are loaded.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from runtime.digests import file_digest
from runtime.files import replace_text

_PAYLOAD = "application/vnd.in-toto+json"


class Signer(Protocol):
    """A P-256 key at work."""

    @property
    def public_pem(self) -> bytes:
        """The public key in PEM form."""

    def sign(self, data: bytes) -> bytes:
        """Return the signature of the data."""


def sign_folder(folder: Path, signer: Signer, about: Mapping[str, Any]) -> Path:
    """Sign every file below `folder`, and write the signature beside it; return its path.

    Args:
        folder: what is signed; it holds no links.
        signer: a P-256 key.
        about: what else is signed: what the folder is, and what it is allowed.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    resources = [{"name": name, "algorithm": "sha256", "digest": file_digest(folder / name)} for name in names]
    whole = hashlib.sha256(b"".join(bytes.fromhex(each["digest"]) for each in resources)).hexdigest()
    form = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []}
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": folder.name, "digest": {"sha256": whole}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {"serialization": form, "resources": resources, "ratchet": dict(about)},
    }
    path = folder.with_name(f"{folder.name}.sig")
    replace_text(path, json.dumps(_bundle(json.dumps(statement).encode(), signer)))
    return path


def _bundle(payload: bytes, signer: Signer) -> dict[str, Any]:
    signed = signer.sign(b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload))
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {
            "publicKey": {"hint": hashlib.sha256(signer.public_pem).hexdigest()},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD,
            "signatures": [{"sig": base64.b64encode(signed).decode(), "keyid": ""}],
        },
    }

"""Keys of tests: made in the test's folder, as `make up` makes those of the embedded stack."""

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from blocks.common.trust import Signing
from runtime.keys import Signer, load_signer, make_key
from runtime.signatures import sign_folder

SIGNER = Signer(Ed25519PrivateKey.generate())
"""Signs decisions where a test has no folder; it keeps no note of where the chain ended."""

MODELS = Signer(
    ec.derive_private_key(0x5EED_0F_7E575, ec.SECP256R1())  # the same in every process of a test run
)
"""Signs the models of tests."""


def signed(folder: Path, **allow: Any) -> Path:
    """Sign a model folder, with what it is allowed, and return it."""
    sign_folder(folder, MODELS, {"allow": allow})
    return folder


def signing_in(folder: Path) -> Signing:
    """Return the keys of an environment, made below `folder`/keys."""
    decisions, models = folder / "keys" / "decisions.pem", folder / "keys" / "models.pem"
    make_key(decisions, "ed25519")
    make_key(models, "p256")
    return Signing(
        decisions_key=str(decisions),
        decisions_head=str(folder / "keys" / "decisions.head"),
        decisions_trusted=(load_signer(decisions).public,),
        models_key=str(models),
        models_trusted=(load_signer(models).public,),
    )

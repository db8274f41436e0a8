"""Keys of tests: made in the test's folder, as `make up` makes those of the embedded stack."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from blocks.signing import Signer, load_signer, make_key
from blocks.trust import Signing

SIGNER = Signer(Ed25519PrivateKey.generate())
"""Signs decisions where a test has no folder; it keeps no note of where the chain ended."""


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

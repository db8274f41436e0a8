"""Whether a model may be loaded at all: signed by a pinned key, and of nothing but what is allowed."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.inspection import UnsafeModel, inspect_model
from runtime.signatures import ModelPermissions, UntrustedSignature, verify_folder

__all__ = [
    "TRUSTED_KEYS_VARIABLE",
    "ModelPermissions",
    "UnsafeModel",
    "UntrustedSignature",
    "admit_model",
    "pinned_keys",
]

TRUSTED_KEYS_VARIABLE = "RATCHET_TRUSTED_KEYS"
"""The variable with the pinned public keys, separated by spaces."""


def admit_model(folder: Path, keys: Sequence[str] | None, signature: Path | None = None) -> ModelPermissions:
    """Return what the signer of the model allows it; `keys` None admits an unsigned one, which is allowed nothing more.

    Raises:
        Unsigned, Refused: it may not be loaded; nothing of it was run.
    """
    permissions = ModelPermissions() if keys is None else verify_folder(folder, keys, signature).permissions
    inspect_model(folder, permissions)
    return permissions


def pinned_keys(environment: Mapping[str, str]) -> list[str] | None:
    """Return the pinned keys; None where `RATCHET_UNSIGNED=allow` gives up on signatures, which is logged."""
    if environment.get("RATCHET_UNSIGNED") == "allow":
        logging.getLogger("ratchet.scoring").warning("RATCHET_UNSIGNED=allow: signatures are not asked for")
        return None
    return environment.get(TRUSTED_KEYS_VARIABLE, "").split()

"""Admission of a model before it is loaded: a signature of a trusted key, and allowed content only."""

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
"""Variable with the trusted public keys, separated by spaces."""


def admit_model(folder: Path, keys: Sequence[str] | None, signature: Path | None = None) -> ModelPermissions:
    """Verify and inspect a model, and return its permissions. With `keys` None unsigned models get no permissions.

    Raises:
        UntrustedSignature, UnsafeModel: the model must not be loaded; none of its code was run.
    """
    permissions = ModelPermissions() if keys is None else verify_folder(folder, keys, signature).permissions
    inspect_model(folder, permissions)
    return permissions


def pinned_keys(environment: Mapping[str, str]) -> list[str] | None:
    """Return the trusted keys; None if `RATCHET_UNSIGNED=allow` disables signatures, which is logged."""
    if environment.get("RATCHET_UNSIGNED") == "allow":
        logging.getLogger("ratchet.scoring").warning("RATCHET_UNSIGNED=allow: signatures are not verified")
        return None
    return environment.get(TRUSTED_KEYS_VARIABLE, "").split()

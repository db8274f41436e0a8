"""Whether a model may be loaded at all: signed by a pinned key, and of nothing but what is allowed."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.inspection import Refused, inspect
from runtime.signatures import Allowed, Unsigned, verify

__all__ = ["KEYS", "Allowed", "Refused", "Unsigned", "admit", "pinned"]

KEYS = "RATCHET_TRUSTED_KEYS"
"""The variable with the pinned public keys, separated by spaces."""


def admit(folder: Path, keys: Sequence[str] | None, signature: Path | None = None) -> Allowed:
    """Return what the signer of the model allows it; `keys` None admits an unsigned one, which is allowed nothing more.

    Raises:
        Unsigned, Refused: it may not be loaded; nothing of it was run.
    """
    allowed = Allowed() if keys is None else verify(folder, keys, signature).allowed
    inspect(folder, allowed)
    return allowed


def pinned(environment: Mapping[str, str]) -> list[str] | None:
    """Return the pinned keys; None where `RATCHET_UNSIGNED=allow` gives up on signatures, which is logged."""
    if environment.get("RATCHET_UNSIGNED") == "allow":
        logging.getLogger("ratchet.scoring").warning("RATCHET_UNSIGNED=allow: signatures are not asked for")
        return None
    return environment.get(KEYS, "").split()

"""The state folder of the processes of one machine."""

import os
from pathlib import Path

from blocks.environment_settings import TRUST_VARIABLE

ROOT = Path(__file__).resolve().parent.parent


def state_folder() -> Path:
    """Return the state folder: `$RATCHET_STATE`, or `.ratchet` in the checkout."""
    return Path(os.environ.get("RATCHET_STATE", ROOT / ".ratchet")).resolve()


def trust_folder() -> Path:
    """Return the folder of trust files of a machine without `MACHINE_FOLDER`: `$RATCHET_TRUST`, or in the state."""
    return Path(os.environ.get(TRUST_VARIABLE) or state_folder() / "trust")

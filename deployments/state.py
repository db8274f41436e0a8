"""The folder in which the processes of one machine keep their state."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def state_folder() -> Path:
    """Return the folder of the stack's state: `$RATCHET_STATE`, or `.ratchet` in the checkout."""
    return Path(os.environ.get("RATCHET_STATE", ROOT / ".ratchet")).resolve()

"""The state folder of the processes of one machine."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def state_folder() -> Path:
    """Return the state folder: `$RATCHET_STATE`, or `.ratchet` in the checkout."""
    return Path(os.environ.get("RATCHET_STATE", ROOT / ".ratchet")).resolve()

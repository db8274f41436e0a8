"""Commit ids as git hosts and CI systems write them."""

import re

from tasks.shared.rules.refusal import Refusal

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def commit_id(value: object, where: str) -> str:
    """Return a full commit id (SHA-1 or SHA-256, lower case), or "" for the one of zeros that means "none".

    Any other value is a Refusal.
    """
    if not isinstance(value, str) or not _COMMIT.fullmatch(value):
        raise Refusal(
            "is not a full commit id", where=where, value=shortened(value), remedy="Give 40 or 64 hexadecimal digits."
        )
    return "" if not value.strip("0") else value


def shortened(value: object) -> object:
    """Return a value for an error message: text is cut to 80 characters."""
    return value if not isinstance(value, str) or len(value) <= 80 else f"{value[:77]}..."

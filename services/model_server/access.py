"""Who may change what is served: whoever has the token, from this machine."""

import hmac
import stat
from pathlib import Path


class InvalidTokenFile(Exception):
    """The token's file is not fit to guard anything; the message says why and what to do."""


def read_token(path: Path) -> str:
    """Return the token in the file.

    Raises:
        NoToken: there is no such file, others may read it, or its content is shorter than 16 characters.
    """
    try:
        mode = path.stat().st_mode
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise InvalidTokenFile(f"the token file {path} cannot be read: {cause}") from cause
    if stat.S_IMODE(mode) & 0o077:
        raise InvalidTokenFile(f"the token file {path} is open to others (mode {stat.S_IMODE(mode):04o}); chmod 600 it")
    if len(token) < 16:
        raise InvalidTokenFile(f"the token in {path} has {len(token)} characters; at least 16 are needed")
    return token


def access_error(token: str, authorization: str | None) -> tuple[int, str] | None:
    """Return why a call with this `Authorization` header may change nothing (status, reason), or None."""
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        return 401, "this call needs the header Authorization: Bearer <token>"
    if not hmac.compare_digest(given.strip().encode(), token.encode()):
        return 403, "the token is not the one of this host"
    return None

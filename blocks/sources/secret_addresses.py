"""Source addresses with a password: a Secret block holds the address, and the run's parameter names the block.

Prefect stores the parameters of a flow run in clear text and shows them to everybody who may view the run.
"""

from typing import cast

import httpx
from prefect.blocks.system import Secret
from prefect.exceptions import PrefectHTTPStatusError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from blocks.common.errors import NotFound, Rejected, Unavailable

BLOCK_PREFIX = "block:"
"""Prefix of a source that names a Secret block: `block:crm`."""

_SECRET_WORDS = ("password", "passwd", "pwd", "secret", "token", "apikey", "api_key")


def resolve_address(source: str) -> str:
    """Return the address of a source: for `block:NAME` the content of the Prefect Secret block, else itself.

    Raises:
        Rejected: the source contains a password, or the block's content is not an address.
        NotFound: there is no such block.
        Unavailable: Prefect's server does not respond.
    """
    if not source.startswith(BLOCK_PREFIX):
        _refuse_password(source)
        return source
    name = source.removeprefix(BLOCK_PREFIX)
    address = _load_secret(name)
    if "://" not in address:  # not quoted in the message: it may be a password
        raise Rejected(
            f"{source}: the block's content is not an address. Save a SQLAlchemy URL in it, such as "
            "postgresql+psycopg://reader:password@host/crm, or an s3:// address."
        )
    return address


def _load_secret(name: str) -> str:
    try:
        return str(cast(Secret[str], Secret.load(name)).get()).strip()
    except ValueError as cause:  # Prefect raises it for a missing block
        raise NotFound(
            f"{BLOCK_PREFIX}{name}: there is no Secret block of that name. Create it on the Prefect UI (Blocks), or "
            f'with Secret(value=…).save("{name}").'
        ) from cause
    except (httpx.HTTPError, PrefectHTTPStatusError) as cause:
        raise Unavailable(f"{BLOCK_PREFIX}{name}: Prefect's server does not respond. Try again.") from cause


def _refuse_password(source: str) -> None:
    source = source.removeprefix("iceberg:")  # whose catalog may be a database
    if "://" not in source:
        return
    try:
        url = make_url(source)
    except (ArgumentError, ValueError):
        return  # not a database URL: opening the source raises the error
    words = [key for key in url.query if any(word in key.lower() for word in _SECRET_WORDS)]
    if url.password or words:
        shown = url.set(query={key: "***" if key in words else value for key, value in url.query.items()})
        raise Rejected(
            f"{shown.render_as_string(hide_password=True)}: the address contains a password, and parameters are stored "
            f"in clear text. Save it in a Prefect Secret block and give {BLOCK_PREFIX}NAME; then change the password."
        )

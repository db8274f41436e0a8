"""Addresses that bear a password stay out of parameters: a Secret block holds them, and a run names the block.

Prefect stores the parameters of a flow run in clear and shows them to everybody who may look at the run.
"""

from typing import cast

import httpx
from prefect.blocks.system import Secret
from prefect.exceptions import PrefectHTTPStatusError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from blocks.common.errors import NotFound, Rejected, Unavailable

BLOCK_PREFIX = "block:"
"""How a source begins that is the name of a Secret block: `block:crm`."""

_SECRET_WORDS = ("password", "passwd", "pwd", "secret", "token", "apikey", "api_key")


def resolve_address(source: str) -> str:
    """Return the address that a source names: itself, or for `block:NAME` what the Prefect Secret block holds.

    Raises:
        Rejected: the source bears a password itself, or the block holds no address.
        NotFound: there is no such block.
        Unavailable: Prefect's server does not answer.
    """
    if not source.startswith(BLOCK_PREFIX):
        _refuse_password(source)
        return source
    name = source.removeprefix(BLOCK_PREFIX)
    address = _load_secret(name)
    if "://" not in address:  # not quoted: it may be a password with a typing error before it
        raise Rejected(
            f"{source}: what the block holds is no address. Save a SQLAlchemy URL in it, such as "
            "postgresql+psycopg://reader:password@host/crm, or an s3:// address."
        )
    return address


def _load_secret(name: str) -> str:
    try:
        return str(cast(Secret[str], Secret.load(name)).get()).strip()
    except ValueError as cause:  # Prefect's word for a block that is not there
        raise NotFound(
            f"{BLOCK_PREFIX}{name}: there is no Secret block of that name. Make it on the Prefect UI under Blocks, or "
            f'with Secret(value=…).save("{name}").'
        ) from cause
    except (httpx.HTTPError, PrefectHTTPStatusError) as cause:
        raise Unavailable(f"{BLOCK_PREFIX}{name}: Prefect's server does not answer. Try again.") from cause


def _refuse_password(source: str) -> None:
    if "://" not in source:
        return
    try:
        url = make_url(source)
    except (ArgumentError, ValueError):
        return  # no database: the error comes where it is opened
    words = [key for key in url.query if any(word in key.lower() for word in _SECRET_WORDS)]
    if url.password or words:
        shown = url.set(query={key: "***" if key in words else value for key, value in url.query.items()})
        raise Rejected(
            f"{shown.render_as_string(hide_password=True)}: the address bears a password, and parameters are stored "
            f"in clear. Save it in a Prefect Secret block and give {BLOCK_PREFIX}NAME; then change the password."
        )

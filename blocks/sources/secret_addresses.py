"""Source addresses with a password: a Secret block holds the address, and the run's parameter names the block.

Prefect stores the parameters of a flow run in clear text and shows them to everybody who may view the run.
"""

import re
from typing import cast
from urllib.parse import unquote

import httpx
from prefect.blocks.system import Secret
from prefect.exceptions import PrefectHTTPStatusError

from blocks.common.errors import NotFound, Rejected, Unavailable

BLOCK_PREFIX = "block:"
"""Prefix of a source that names a Secret block: `block:crm`."""

_NAMES = r"[\w.+-]*(?:pass|pwd|secret|token|credential|signature|(?:api|access|account|private)[_-]?key)[\w.+-]*|sig"
_URL_PASSWORD = re.compile(
    r"(//[^/?#@:\s]*|(?<!\S)[\w.+-]+:/?[^/?#@:\s]+|(?<!\S)(?!(?:block|delta|iceberg):)[\w.+-]+(?=:[^/\s]+@))"
    r":(?!//)[^\n]*@"
)
_URL_TOKEN = re.compile(r"(https?://)[^/?#@\s]+@", re.IGNORECASE)
_NAMED_SECRET = re.compile(
    rf"((?<![\w.+-])(?:{_NAMES})|(?<=[?&])(?:auth|key))([\"']?\s*(?:=|(?<=[\"'\s]):|:(?=\s))\s*)"
    r"(?=\S)(?:'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|\{(?:[^}]|\}\})*\})?[^&;#\s]*",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """Return a text without the passwords of the addresses in it.

    Masked are `user:password@` of a URL, `token@` of a web address, and values behind names such as `password=`,
    `X-Amz-Signature=` or `PWD=`, in a query string, in libpq's form, in ODBC's, in YAML and in JSON. A text with one
    that shows only when percent-escapes are decoded is cut at the first escape.
    """
    shown = decoded = _masked_once(text)
    for _ in range(3):  # escapes may be escaped
        decoded = unquote(decoded)
        if _masked_once(decoded) != decoded:
            return f"{shown[: shown.find('%')]}***"
    return shown


def _masked_once(text: str) -> str:
    return _NAMED_SECRET.sub(r"\1\2***", _URL_TOKEN.sub(r"\1***@", _URL_PASSWORD.sub(r"\1:***@", text)))


def resolve_address(source: str) -> str:
    """Return the address of a source: for `block:NAME` the content of the Prefect Secret block, else itself.

    Raises:
        Rejected: the source contains a password or control characters, or the block's content is not an address.
        NotFound: there is no such block.
        Unavailable: Prefect's server does not respond.
    """
    if not source.isprintable():
        raise Rejected(f"{source!a} has control characters. Remove line ends, NUL and the like.")
    if not source.startswith(BLOCK_PREFIX):
        if (shown := masked(source)) != source:
            raise Rejected(
                f"{shown}: the address contains a password, and parameters are stored in clear text. Save it in a "
                f"Prefect Secret block and give {BLOCK_PREFIX}NAME; then change the password."
            )
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

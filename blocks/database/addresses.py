"""A ledger's database by its URL: which ones can hold a ledger, and what is said of one without its password."""

import sqlite3
from collections.abc import Iterable
from importlib.util import find_spec

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError

from blocks.common.errors import Corrupt, PortError, Rejected, Unavailable

_PASSING_STATES = {"08", "40", "53", "55", "57"}
"""Classes of PostgreSQL's error codes that pass: connection, rollback, resources, locks, intervention
(https://www.postgresql.org/docs/current/errcodes-appendix.html)."""


def checked(url: str) -> URL:
    """Return the URL with the driver that is installed. Raises Rejected for a database that holds no ledger."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise Rejected(
            "ledger: the URL cannot be read. Write sqlite:////folder/ledger.db or postgresql://user@host/name."
        ) from None  # the cause may quote the URL, and with it a password
    backend = parsed.get_backend_name()
    if backend not in {"sqlite", "postgresql"}:
        raise Rejected(f"ledger: {backend} is not supported. Use sqlite or postgresql.")
    if backend == "sqlite" and (not parsed.database or parsed.database == ":memory:"):
        raise Rejected("ledger: a database in memory forgets. Name a file: sqlite:////folder/ledger.db.")
    if parsed.drivername == "postgresql":
        driver = "psycopg" if find_spec("psycopg") else "asyncpg"
        parsed = parsed.set(drivername=f"postgresql+{driver}")
    return parsed


def place(url: URL) -> str:
    """Return where the database is, for messages: without user, password and options."""
    bare = URL.create(url.drivername, host=url.host, port=url.port, database=url.database)
    return bare.render_as_string()


def port_error(cause: Exception, url: URL) -> PortError:
    """Return the port's error: it names the database, never its password."""
    original = getattr(cause, "orig", None) or cause
    said = (str(original).strip() or type(original).__name__).splitlines()[0]
    for secret in (url.password, *_texts(url.query.values())):
        said = said.replace(str(secret), "***") if secret else said
    about = f"ledger at {place(url)}: {said}"
    if "malformed" in said or "not a database" in said:
        return Corrupt(f"{about}. Restore the file from a backup; nothing was written.")
    if _may_pass(cause, original, said):
        return Unavailable(f"{about}. Is it there, and free? The call may be repeated.")
    return Rejected(f"{about}. Nothing was written; mend the URL, its rights or the database.")


def _may_pass(cause: Exception, original: BaseException, said: str) -> bool:
    """Tell whether the same call may succeed in a moment."""
    if isinstance(original, sqlite3.Error):
        return "locked" in said or "busy" in said
    if state := getattr(original, "sqlstate", None):  # PostgreSQL's own word, better than the drivers' classes
        return str(state)[:2] in _PASSING_STATES
    if isinstance(original, PermissionError | NotADirectoryError | FileExistsError):
        return False
    return isinstance(cause, OperationalError | InterfaceError | OSError)


def _texts(values: Iterable[str | tuple[str, ...]]) -> list[str]:
    return [text for value in values for text in ((value,) if isinstance(value, str) else value)]

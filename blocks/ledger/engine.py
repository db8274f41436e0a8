"""How the ledger reaches its database: one short transaction a call, alike on SQLite and PostgreSQL.

No connection is kept between calls, so a fork, a thread or a server's restart finds nothing stale. PostgreSQL
is reached by psycopg where it is installed, else by asyncpg, which comes with Prefect.
"""

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from asyncpg.exceptions import PostgresError
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.pool import NullPool
from sqlalchemy.util import greenlet_spawn

from blocks.common.errors import Corrupt, PortError, Rejected, Unavailable
from blocks.ledger.tables import METADATA

Result = TypeVar("Result")

_LOCK_SECONDS = 30.0  # how long a writer waits for those before it
_CONNECT_SECONDS = 10
_ADVISORY_LOCK = 7_205_759_403  # any number, but the same in every process
_WRITES = "ratchet_writes"
_PASSING_STATES = {"08", "40", "53", "55", "57"}
"""Classes of PostgreSQL's error codes that pass: connection, rollback, resources, locks, intervention
(https://www.postgresql.org/docs/current/errcodes-appendix.html)."""


class Database:
    """The database at a URL; it makes the ledger's tables at the first call."""

    def __init__(self, url: str) -> None:
        self._url = _checked(url)
        self._engine = _engine(self._url)
        self._ready = False
        self._lock = Lock()

    def read(self, work: Callable[[Connection], Result]) -> Result:
        """Return what `work` reads, all of it from one moment. Raises as `write` does."""
        return self._call(lambda: self._transaction(work, writes=False))

    def write(self, work: Callable[[Connection], Result]) -> Result:
        """Do the work whole or not at all; when this returns, it survives a crash of the machine.

        Raises:
            IntegrityError: (SQLAlchemy's) a row under that key is there.
            Unavailable: the database does not answer, or is locked for too long.
            Corrupt: the file is no database, or a damaged one.
            Rejected: the database refuses it for another reason.
        """
        return self._call(lambda: self._transaction(work, writes=True))

    def _call(self, work: Callable[[], Result]) -> Result:
        try:
            self._make_ready()
            return self._run(work)
        except IntegrityError:
            raise
        except (SQLAlchemyError, sqlite3.Error, PostgresError, OSError) as cause:  # asyncpg's own where it connects
            raise _port_error(cause, self._url) from cause

    def _run(self, work: Callable[[], Result]) -> Result:
        if not self._engine.dialect.is_async:
            return work()
        with ThreadPoolExecutor(1) as thread:  # the caller's thread may be running an event loop of its own
            return thread.submit(lambda: asyncio.run(greenlet_spawn(work))).result()

    def _transaction(self, work: Callable[[Connection], Result], *, writes: bool) -> Result:
        with self._engine.connect().execution_options(**{_WRITES: writes}) as connection, connection.begin():
            return work(connection)

    def _make_ready(self) -> None:
        with self._lock:
            if not self._ready:
                if self._url.get_backend_name() == "sqlite":
                    _make_file(self._engine, Path(str(self._url.database)))
                if not self._run(lambda: self._transaction(_has_tables, writes=False)):
                    self._run(lambda: self._transaction(_make_tables, writes=True))
                self._ready = True


def _port_error(cause: Exception, url: URL) -> PortError:
    """Return the port's error: it names the database, never its password."""
    original = getattr(cause, "orig", None) or cause
    said = (str(original).strip() or type(original).__name__).splitlines()[0]
    for secret in (url.password, *_texts(url.query.values())):
        said = said.replace(str(secret), "***") if secret else said
    place = f"ledger at {_without_secrets(url)}: {said}"
    if "malformed" in said or "not a database" in said:
        return Corrupt(f"{place}. Restore the file from a backup; nothing was written.")
    if _may_pass(cause, original, said):
        return Unavailable(f"{place}. Is it there, and free? The call may be repeated.")
    return Rejected(f"{place}. Nothing was written; mend the URL, its rights or the database.")


def _may_pass(cause: Exception, original: BaseException, said: str) -> bool:
    """Tell whether the same call may succeed in a moment."""
    if isinstance(original, sqlite3.Error):
        return "locked" in said or "busy" in said
    if state := getattr(original, "sqlstate", None):  # PostgreSQL's own word, better than the drivers' classes
        return str(state)[:2] in _PASSING_STATES
    if isinstance(original, PermissionError | NotADirectoryError | FileExistsError):
        return False
    return isinstance(cause, OperationalError | InterfaceError | OSError)


def _checked(url: str) -> URL:
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


def _texts(values: Iterable[str | tuple[str, ...]]) -> list[str]:
    return [text for value in values for text in ((value,) if isinstance(value, str) else value)]


def _without_secrets(url: URL) -> str:
    bare = URL.create(url.drivername, host=url.host, port=url.port, database=url.database)
    return bare.render_as_string()


def _engine(url: URL) -> Engine:
    options: dict[str, dict[str, Any]] = {
        "sqlite": {"timeout": _LOCK_SECONDS},
        "psycopg": {"connect_timeout": _CONNECT_SECONDS},
        "asyncpg": {"timeout": _CONNECT_SECONDS},
    }
    kind = "sqlite" if url.get_backend_name() == "sqlite" else url.get_driver_name()
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=options.get(kind, {}))
    if kind == "sqlite":
        event.listen(engine, "connect", _prepare_connection)
        event.listen(engine, "begin", _begin)
    return engine


def _prepare_connection(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # Python's driver would begin transactions late, and deferred
    for pragma in ("synchronous = FULL", "foreign_keys = ON", "recursive_triggers = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    """Begin with the write lock: a deferred transaction that writes later fails at once when another writes."""
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _make_file(engine: Engine, file: Path) -> None:
    """Make the file and set its write-ahead log; SQLite does not wait for that lock, so this tries again."""
    file.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        raw = engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA journal_mode = WAL")
            return
        except Exception as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - only to get out of step
        finally:
            raw.close()


def _has_tables(connection: Connection) -> bool:
    """Whether every table is there; a ledger of an earlier release gets those that it lacks."""
    return set(METADATA.tables) <= set(inspect(connection).get_table_names())


def one_at_a_time(connection: Connection) -> None:
    """Wait for other transactions that called this to end; SQLite lets one write at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})


def _make_tables(connection: Connection) -> None:
    one_at_a_time(connection)
    METADATA.create_all(connection, checkfirst=True)

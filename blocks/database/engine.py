"""The ledger's database: one short transaction for each call, the same on SQLite and PostgreSQL.

No connection is held between calls, so a fork, a thread or a restart of the server finds nothing stale. The driver of
PostgreSQL is psycopg if it is installed, else asyncpg, which comes with Prefect.
"""

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TypeVar

from asyncpg.exceptions import PostgresError
from sqlalchemy import (
    Connection,
    Engine,
    RowMapping,
    Select,
    Table,
    create_engine,
    event,
    insert,
    select,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.util import greenlet_spawn

from blocks.common.errors import Corrupt, PortError, Rejected, Unavailable
from blocks.database.common import to_utc
from blocks.database.migrations import is_current, upgrade
from blocks.database.readable import UnreadableRow, check_readable, fields_or_problem

Result = TypeVar("Result")
Record = TypeVar("Record")

_LOCK_SECONDS = 30.0  # how long a writer waits for earlier ones
_CONNECT_SECONDS = 10
_ADVISORY_LOCK = 7_205_759_403  # any number, but the same in every process
_WRITES_OPTION = "ratchet_writes"


class Database:
    """The database at a URL; the first call creates the ledger's tables, or upgrades them."""

    def __init__(self, url: str) -> None:
        self._url = checked(url)
        self._engine = _create_engine(self._url)
        self._ready = False
        self._lock = Lock()

    @property
    def address(self) -> str:
        """The URL, with its password: not for messages."""
        return self._url.render_as_string(hide_password=False)

    def read(self, work: Callable[[Connection], Result]) -> Result:
        """Return the result of `work`, read in one transaction. Raises as `write` does."""
        return self._call(lambda: self._transaction(work, writes=False))

    def write(self, work: Callable[[Connection], Result]) -> Result:
        """Do the work completely or not at all; when this returns, it survives a crash of the machine.

        Raises:
            IntegrityError: (SQLAlchemy's) a row with that key exists.
            Unavailable: the database does not respond, or is locked for too long.
            Corrupt: the file is no database, or a damaged one.
            Rejected: a newer release has upgraded the tables, or the database refuses the work for another reason.
        """
        return self._call(lambda: self._transaction(work, writes=True))

    def rows(self, query: Select[Any]) -> list[RowMapping]:
        """Return the rows of a query. Raises as `write` does, and UnreadableRow."""
        found = self.read(lambda connection: list(connection.execute(query).mappings()))
        for row in found:
            check_readable(row, query)
        return found

    def records(self, kind: Callable[..., Record], query: Select[Any]) -> tuple[Record, ...]:
        """Return the rows of a query as records whose fields are the columns. Raises as `rows` does."""
        return tuple(kind(**fields) for fields in self._row_fields(query))

    def find(self, table: Table, **equal: Any) -> tuple[dict[str, Any], ...]:
        """Return the rows with these values in these columns as fields, in the order in which they were added."""
        query = select(table).where(*[table.c[name] == value for name, value in equal.items()])
        return self._row_fields(query.order_by(table.c.sequence))

    def all_rows(self, query: Select[Any]) -> "list[dict[str, Any] | UnreadableRow]":
        """Return the rows of a query as fields, and in place of a row that cannot be read why not."""
        found = self.read(lambda connection: list(connection.execute(query).mappings()))
        return [fields_or_problem(row, query) for row in found]

    def _row_fields(self, query: Select[Any]) -> tuple[dict[str, Any], ...]:
        found: list[dict[str, Any]] = []
        for row in self.all_rows(query):
            if isinstance(row, UnreadableRow):
                row.before = tuple(found)
                raise row
            found.append(row)
        return tuple(found)

    def add_record(self, table: Table, record: Record, *key: str) -> Record:
        """Insert a record, or return the one with the same values in the columns `key`. Raises as `write` does."""
        return add_record(self, table, record, *key)

    def add(self, table: Table, values: Mapping[str, Any]) -> None:
        """Insert a row, unless one with its key exists. Raises as `write` does."""
        moments = {name: to_utc(value) for name, value in values.items() if isinstance(value, datetime)}
        try:
            self.write(lambda connection: connection.execute(insert(table), {**values, **moments}))
        except IntegrityError:
            return  # another writer was first; the caller reads its row

    def _call(self, work: Callable[[], Result]) -> Result:
        try:
            self._ensure_tables()
            return self._run(work)
        except IntegrityError:
            raise
        except (SQLAlchemyError, sqlite3.Error, PostgresError, OSError) as cause:  # asyncpg's own where it connects
            raise port_error(cause, self._url) from cause

    def _run(self, work: Callable[[], Result]) -> Result:
        if not self._engine.dialect.is_async:
            return work()
        with ThreadPoolExecutor(1) as thread:  # the caller's thread may be running an event loop of its own
            return thread.submit(lambda: asyncio.run(greenlet_spawn(work))).result()

    def _transaction(self, work: Callable[[Connection], Result], *, writes: bool) -> Result:
        with self._engine.connect().execution_options(**{_WRITES_OPTION: writes}) as connection, connection.begin():
            return work(connection)

    def _ensure_tables(self) -> None:
        with self._lock:
            if not self._ready:
                if self._url.get_backend_name() == "sqlite":
                    _make_file(self._engine, Path(str(self._url.database)))
                if not self._run(lambda: self._transaction(is_current, writes=False)):
                    self._run(lambda: self._transaction(self._upgrade, writes=True))
                self._ready = True

    def _upgrade(self, connection: Connection) -> None:
        lock_writers(connection)
        upgrade(connection, place(self._url))


class Rows(Protocol):
    """Rows of tables: those of a `Database`, or sealed ones."""

    def add(self, table: Table, values: Mapping[str, Any]) -> None:
        """Insert a row, unless one with its key exists."""

    def find(self, table: Table, **equal: Any) -> tuple[dict[str, Any], ...]:
        """Return the rows with these values in these columns as fields, in the order in which they were added."""


def add_record(rows: Rows, table: Table, record: Record, *key: str) -> Record:
    """Insert a record, or return the one with the same values in the columns `key`."""
    values = vars(record)
    rows.add(table, values)
    found = rows.find(table, **{name: values[name] for name in key})
    stored = type(record)(**found[0]) if found else None
    return recorded(stored, f"{type(record).__name__} {[values[name] for name in key]}")


def recorded(record: Record | None, name: str) -> Record:
    """Return the record that was just written. Raises Rejected if there is none: the database refused the row."""
    if record is None:
        raise Rejected(f"ledger: {name} was refused by the database: a value is missing or out of its range.")
    return record


def lock_writers(connection: Connection) -> None:
    """Wait for the end of other transactions that called this; SQLite admits one writer at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})


def _create_engine(url: URL) -> Engine:
    options: dict[str, dict[str, Any]] = {
        "sqlite": {"timeout": _LOCK_SECONDS},
        "psycopg": {"connect_timeout": _CONNECT_SECONDS},
        "asyncpg": {"timeout": _CONNECT_SECONDS},
    }
    kind = "sqlite" if url.get_backend_name() == "sqlite" else url.get_driver_name()
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=options.get(kind, {}))
    if kind == "sqlite":
        event.listen(engine, "connect", _prepare_connection)
        event.listen(engine, "begin", _begin_transaction)
    return engine


def _prepare_connection(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # Python's driver would begin transactions late, and deferred
    connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")  # see `_is_unicode`
    for pragma in ("synchronous = FULL", "foreign_keys = ON", "recursive_triggers = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_transaction(connection: Connection) -> None:
    """Begin with the write lock: a deferred transaction that writes later fails at once when another writes."""
    writes = connection.get_execution_options().get(_WRITES_OPTION)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _make_file(engine: Engine, file: Path) -> None:
    """Create the file and its write-ahead log; SQLite does not wait for that lock, so this tries again."""
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


_PASSING_STATES = {"08", "40", "53", "55", "57"}
"""Classes of PostgreSQL's transient error codes: connection, rollback, resources, locks, intervention
(https://www.postgresql.org/docs/current/errcodes-appendix.html)."""


def checked(url: str) -> URL:
    """Return the URL with the installed driver. Raises Rejected for a database that cannot hold a ledger."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise Rejected(
            "ledger: the URL cannot be read. Write sqlite:////folder/ledger.db or postgresql://user@host/name."
        ) from None  # the cause may contain the URL with its password
    backend = parsed.get_backend_name()
    if backend not in {"sqlite", "postgresql"}:
        raise Rejected(f"ledger: {backend} is not supported. Use sqlite or postgresql.")
    if backend == "sqlite" and (not parsed.database or parsed.database == ":memory:"):
        raise Rejected("ledger: a database in memory is not durable. Use a file: sqlite:////folder/ledger.db.")
    if parsed.drivername == "postgresql":
        driver = "psycopg" if find_spec("psycopg") else "asyncpg"
        parsed = parsed.set(drivername=f"postgresql+{driver}")
    return parsed


def place(url: URL) -> str:
    """Return the database's URL for messages, without user, password and options."""
    bare = URL.create(url.drivername, host=url.host, port=url.port, database=url.database)
    return bare.render_as_string()


def port_error(cause: Exception, url: URL) -> PortError:
    """Return the port error; the message names the database, never its password."""
    original = getattr(cause, "orig", None) or cause
    text = (str(original).strip() or type(original).__name__).splitlines()[0]
    for secret in (url.password, *_texts(url.query.values())):
        text = text.replace(str(secret), "***") if secret else text
    problem = f"ledger at {place(url)}: {text}"
    if "malformed" in text or "not a database" in text:
        return Corrupt(f"{problem}. Restore the file from a backup; nothing was written.")
    if _is_transient(cause, original, text):
        return Unavailable(f"{problem}. Check that the database is running and not locked, then try again.")
    return Rejected(f"{problem}. Nothing was written; correct the URL, the permissions or the database.")


def _is_transient(cause: Exception, original: BaseException, text: str) -> bool:
    """Return whether the same call may succeed in a moment."""
    if isinstance(original, sqlite3.Error):
        return "locked" in text or "busy" in text
    if state := getattr(original, "sqlstate", None):  # PostgreSQL's code is more precise than the drivers' classes
        return str(state)[:2] in _PASSING_STATES
    if isinstance(original, PermissionError | NotADirectoryError | FileExistsError):
        return False
    return isinstance(cause, OperationalError | InterfaceError | OSError)


def _texts(values: Iterable[str | tuple[str, ...]]) -> list[str]:
    return [text for value in values for text in ((value,) if isinstance(value, str) else value)]

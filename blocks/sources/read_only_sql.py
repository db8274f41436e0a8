"""Connections to databases that can only read, whatever the query says.

- A statement that is no single query is refused before it runs.
- SQLite: the file is opened read-only, and SQLite asks this module about each action of a statement; only reading is
  allowed (no ATTACH, PRAGMA, VACUUM, DDL).
- PostgreSQL: the transaction is read-only from its first statement on, which a query cannot undo. A role that could act
  outside of the transaction (a superuser, files of the server, other databases) is refused.
- Other databases have no such guard here. An environment must name them in `sources.schemes`.
"""

import asyncio
import re
import sqlite3
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote

import sqlalchemy as sa
from asyncpg.exceptions import PostgresError
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.util import greenlet_spawn

from blocks.common.errors import Rejected, Unavailable
from blocks.common.source_settings import SourceSettings
from blocks.sources.file_listing import checked_path
from blocks.sources.secret_addresses import masked

Item = TypeVar("Item")

_URL_OPTIONS: Final = {
    "sqlite": {"timeout"},
    "postgresql": {
        *(
            "application_name",
            "client_encoding",
            "connect_timeout",
            "keepalives",
            "keepalives_count",
            "keepalives_idle",
        ),
        *("keepalives_interval", "options", "password", "ssl", "sslcert", "sslcrl", "sslkey", "sslmode", "sslpassword"),
        *("sslrootcert", "target_session_attrs", "user"),
    },
}
"""Options of a URL that may be given; others may name another host, file or service than the one that was checked."""
_OTHER_OPTIONS: Final = {
    "charset",
    "connect_timeout",
    "driver",
    "encrypt",
    "password",
    "role",
    "timeout",
    "user",
    "warehouse",
}

_FIRST_WORD = re.compile(r"(?:\s|\(|--[^\n]*(?:\n|$)|/\*(?![!+]).*?\*/)*([A-Za-z]*)", re.DOTALL)
_WRITING_WORDS = re.compile(  # SQL Server needs no semicolon between two statements
    r"\b(into|insert|update|delete|merge|exec|execute|call|drop|create|alter|truncate|grant|revoke|set|use|declare|begin|"
    r"commit|rollback|backup|restore|shutdown|kill|waitfor|load|copy|put|remove|unload|load_file|open\w+|xp_\w+|sp_\w+|"
    r"utl_\w+|dbms_\w+)\b|/\*!",
    re.IGNORECASE,
)
_ACTING_IN_POSTGRES: Final = re.compile(  # functions that everyone may call, in a read-only transaction too
    r"\b(pg_logical_emit_message|pg_notify|pg_export_snapshot|\w+_to_xml\w*|ts_stat|ts_rewrite)\b|\bu&\s*[\"']",
    re.IGNORECASE,
)
_FILE_DATABASES: Final = {"access", "chdb", "duckdb", "motherduck", "shillelagh", "gsheets", "csvfile", "datafusion"}
"""Databases that are a library in this process: they open files of this machine by themselves."""
_CONNECT_SECONDS = 10

_READING: Final = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_ACTING_FUNCTIONS: Final = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"}

_POSTGRES_POWERS = """
SELECT current_setting('transaction_read_only') AS read_only,
    (SELECT string_agg(rolname, ', ') FROM pg_catalog.pg_roles
     WHERE (rolsuper OR rolreplication
            OR rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program'))
       AND pg_catalog.pg_has_role(session_user, oid, 'MEMBER')) AS roles,
    (SELECT string_agg(DISTINCT proname, ', ') FROM pg_catalog.pg_proc
     WHERE (proname LIKE 'dblink%' OR proname IN ('lo_import', 'lo_export', 'pg_read_file', 'pg_read_binary_file',
            'pg_ls_dir', 'pg_reload_conf', 'pg_rotate_logfile', 'pg_switch_wal', 'pg_promote'))
       AND pg_catalog.has_function_privilege(session_user, oid, 'EXECUTE')) AS functions
"""


def database_url(source: str, allowed: SourceSettings) -> sa.URL:
    """Return the URL of a database that the environment may query.

    Raises:
        NotFound: there is no such SQLite file.
        Rejected: it is no URL of a database, the place is not allowed, or it has an option that could name another one.
    """
    try:
        url = sa.make_url(source)
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError):
        scheme = source.split("://", maxsplit=1)[0]
        raise Rejected(
            f"{scheme}://… is not a database that can be read here. Give a SQLAlchemy URL, such as "
            "sqlite:///folder/file.db, an s3:// address, or the path of a file."
        ) from None  # the cause may repeat a part of the password
    shown, backend = masked(source), url.get_backend_name()
    allowed.check_scheme(backend, shown)
    options = _URL_OPTIONS.get(backend, _OTHER_OPTIONS)
    if unknown := sorted({key.lower() for key in url.query} - options):
        given = ", ".join(sorted(options))
        raise Rejected(
            f"{shown}: the option {unknown[0]!r} is not allowed in the URL. Leave it out; allowed are {given}."
        )
    if backend == "sqlite":
        return _sqlite_url(url, allowed, shown)
    if backend != "postgresql" and (backend in _FILE_DATABASES or not url.host):
        remedy = "Give the host of a server, or export the rows as Parquet"
        raise Rejected(f"{shown}: it names no server, and {backend} may open any file of this machine. {remedy}.")
    if re.search(r"[=:/%\s]", url.database or ""):  # libpq would read it as an address of its own
        raise Rejected(f"{shown}: {url.database!r} is no name of a database. Write {backend}://host/name.")
    if not re.fullmatch(r"[\w.:-]*", url.host or ""):  # a part of the password, if it has an @; not repeated
        raise Rejected(
            f"{shown}: the host's name has other characters. Write @ in a password as %40, / as %2F, : as %3A."
        )
    allowed.check_host(url.host or "localhost", url.port, shown)
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg" if find_spec("psycopg") else "postgresql+asyncpg")
    return url


def _sqlite_url(url: sa.URL, allowed: SourceSettings, shown: str) -> sa.URL:
    if url.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise Rejected(f"{shown}: SQLite is read by Python's own driver. Write sqlite:///folder/file.db.")
    if not url.database or url.database == ":memory:":
        raise Rejected(f"{shown}: it names no file. Write sqlite:///folder/file.db.")
    if not re.fullmatch(r"\d{1,5}(\.\d+)?", str(url.query.get("timeout", 5))):
        raise Rejected(f"{shown}: its timeout is no number of seconds. Write ?timeout=5, or leave it out.")
    allowed.check_path(Path(url.database), shown)
    checked_path(url.database)  # SQLite would say less about a mistyped name
    return url


def check_query(query: str, url: sa.URL, shown: str) -> None:
    """Check that a statement is one query. Only texts without any further semicolon are, also in quotes and comments.

    Raises:
        Rejected: it begins with another word than SELECT, WITH, VALUES or TABLE; it holds more than one statement; or,
            but for SQLite, it holds a word that writes or acts.
    """
    statement, first = query.strip().rstrip("; \t\r\n"), ""
    if match := _FIRST_WORD.match(statement):
        first = match[1].upper()
    if first not in ("SELECT", "WITH", "VALUES", "TABLE"):
        raise Rejected(f"{shown}: {first or statement[:1]!r} begins no query; a source is only read. Give a SELECT.")
    if ";" in statement or "\0" in statement:
        raise Rejected(
            f"{shown}: the query holds a semicolon, so it may be several statements. Take it out, also of comments; "
            "in a text write CHR(59), or CHAR(59)."
        )
    words = {"sqlite": None, "postgresql": _ACTING_IN_POSTGRES}.get(url.get_backend_name(), _WRITING_WORDS)
    if words and (found := words.search(statement)):
        raise Rejected(f"{shown}: the query holds {found[0]!r}, and a source is only read. Take the word out.")


def read_rows(url: sa.URL, shown: str, work: Callable[[sa.Connection], Iterator[Item]]) -> Iterator[Item]:
    """Yield what `work` yields over a connection that can only read, and close it at the end.

    Raises:
        Rejected: the driver is not installed, or the role could do more than read.
        Unavailable: there is no connection.
    """
    items = _rows(url, shown, work)
    if url.get_driver_name() != "asyncpg":
        yield from items
        return
    # The caller's thread may run an event loop of its own, and asyncpg's connection belongs to one loop.
    with ThreadPoolExecutor(1) as thread, closing(asyncio.new_event_loop()) as loop:

        def step(act: Callable[..., Any], *arguments: object) -> Any:
            return thread.submit(lambda: loop.run_until_complete(greenlet_spawn(act, *arguments))).result()

        try:
            while (item := step(next, items, None)) is not None:
                yield item
        finally:
            step(items.close)


def _rows(url: sa.URL, shown: str, work: Callable[[sa.Connection], Iterator[Item]]) -> Generator[Item, None, None]:
    with _connected(url, shown) as connection:
        if url.get_backend_name() == "sqlite":
            driver_connection = cast(sqlite3.Connection, connection.connection.driver_connection)
            driver_connection.set_authorizer(_only_reads)  # from here on: SQLAlchemy has asked for its PRAGMAs
        elif url.get_backend_name() == "postgresql":
            _begin_read_only(connection, shown)
        yield from work(connection.execution_options(stream_results=True))


def _connected(url: sa.URL, shown: str) -> sa.Connection:
    try:
        if url.get_backend_name() == "sqlite":
            engine = sa.create_engine("sqlite://", creator=lambda: _open_sqlite(url), poolclass=NullPool)
        else:
            limit = {"psycopg": "connect_timeout", "asyncpg": "timeout"}.get(url.get_driver_name())
            limits = {limit: _CONNECT_SECONDS} if limit and "connect_timeout" not in url.query else {}
            engine = sa.create_engine(url, poolclass=NullPool, connect_args=limits)
        return engine.connect().execution_options(no_parameters=True)  # a % in a query is one
    except ImportError as cause:
        raise Rejected(f"{shown}: its driver is not installed ({cause}). Install it.") from cause
    except (SQLAlchemyError, PostgresError, OSError, TypeError, ValueError) as cause:
        reason = _without_secrets(str(getattr(cause, "orig", None) or cause), url)
        raise Unavailable(f"{shown}: no connection: {reason}. Check that it runs, then try again.") from None


def _without_secrets(text: str, url: sa.URL) -> str:
    """Return a driver's message without the password, in case that it repeats the address."""
    for secret in filter(None, (url.password, url.query.get("password"), url.query.get("sslpassword"))):
        text = text.replace(str(secret), "***")
    return masked(text)


def _open_sqlite(url: sa.URL) -> sqlite3.Connection:
    address = f"file:{quote(str(Path(str(url.database)).absolute()))}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=float(str(url.query.get("timeout", 5))))
    connection.execute("PRAGMA trusted_schema = OFF")  # the file's own views may not call functions with effects
    return connection


def _only_reads(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """Return whether a statement may do what it is about to do. The last two are SQLite's own, within its functions."""
    reads = action in _READING and not (action == sqlite3.SQLITE_FUNCTION and str(second).lower() in _ACTING_FUNCTIONS)
    reads |= action == sqlite3.SQLITE_UPDATE and first == "sqlite_master"  # json_each; the file is read-only
    reads |= action == sqlite3.SQLITE_PRAGMA and first == "data_version" and second is None  # full-text search
    return sqlite3.SQLITE_OK if reads else sqlite3.SQLITE_DENY


def _begin_read_only(connection: sa.Connection, shown: str) -> None:
    """Begin a read-only transaction. After its first query, PostgreSQL lets nothing make it writable again."""
    connection.exec_driver_sql("SET TRANSACTION READ ONLY")
    powers = connection.exec_driver_sql(_POSTGRES_POWERS).mappings().one()
    if powers["read_only"] != "on":
        raise Rejected(f"{shown}: the server gives no read-only transaction. Use a server and a driver that do.")
    if powers["roles"]:
        remedy = "Create a role that may only SELECT, and give its name"
        raise Rejected(f"{shown}: the role is or may become {powers['roles']}, which can do more than read. {remedy}.")
    if powers["functions"]:
        remedy = f"REVOKE EXECUTE ON FUNCTION {powers['functions']} FROM PUBLIC, or from the role"
        raise Rejected(f"{shown}: the role may call {powers['functions']}, which act outside of the query. {remedy}.")

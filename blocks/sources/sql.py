"""Queries as sources, over SQLAlchemy: read only, in pieces, and nothing is committed."""

from collections.abc import Mapping
from urllib.parse import quote

import pyarrow as pa
from sqlalchemy import URL, Connection, CursorResult, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from blocks.errors import Rejected, Unavailable
from blocks.sources.base import (
    SourceTable,
    check_kinds,
    check_names,
    not_empty,
    numbered,
    row_text,
    typed,
)
from blocks.sources.files import checked_path
from blocks.sources.frames import of_values

_ROWS = 50_000
_BUSY = ("locked", "timeout", "timed out", "too many connections", "deadlock")


def read_sql(source: str, query: str, kinds: Mapping[str, str]) -> SourceTable:
    """Return the declared columns of a query's rows; see `blocks.sources.read_source`."""
    check_kinds(kinds)
    url = _url(source)
    shown = url.render_as_string(hide_password=True)
    if not query.strip():
        raise Rejected(f"{shown}: there is no query. Give one that selects {', '.join(kinds)}.")
    connection = _connect(url, shown)
    try:
        with connection:
            return not_empty(_rows(connection, query, kinds, f"query on {shown}"))
    except DBAPIError as cause:
        reason = str(cause.orig)
        busy = cause.connection_invalidated or any(word in reason.lower() for word in _BUSY)
        error = Unavailable if busy else Rejected
        raise error(f"query on {shown}: {reason}. {'Try again' if busy else 'Mend the query'}.") from cause
    finally:
        connection.engine.dispose()


def _url(source: str) -> URL:
    try:
        url = make_url(source)
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError) as cause:
        scheme = source.split("://", maxsplit=1)[0]
        raise Rejected(
            f"{scheme}://… is not a database that can be read here. Give a SQLAlchemy URL, such as "
            "sqlite:///folder/file.db, or the path of a file."
        ) from cause
    if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
        path = checked_path(str(url.database))  # SQLite would make an empty database of a mistyped name
        return url.set(database=f"file:{quote(str(path))}", query={**url.query, "mode": "ro", "uri": "true"})
    return url


def _connect(url: URL, shown: str) -> Connection:
    try:
        engine = create_engine(url)
        options = {"postgresql_readonly": True} if engine.dialect.name == "postgresql" else {}
        return engine.connect().execution_options(stream_results=True, **options)
    except ImportError as cause:
        raise Rejected(f"{shown}: its driver is not installed ({cause}). Install it.") from cause
    except SQLAlchemyError as cause:
        raise Unavailable(f"{shown}: no connection: {cause}. Check that it runs, then try again.") from cause


def _rows(connection: Connection, query: str, kinds: Mapping[str, str], shown: str) -> SourceTable:
    result = connection.exec_driver_sql(query)
    if not result.returns_rows:
        raise Rejected(f"{shown}: it returns no rows, and what it did is rolled back. Give a SELECT.")
    names = list(result.keys())
    ignored = check_names(names, kinds, shown)
    pieces = _pieces(result, names, kinds)
    if not pieces:
        raise Rejected(f"{shown}: there are 0 rows. Check the query.")
    return SourceTable(
        pa.concat_tables(piece.table for piece in pieces),
        pa.chunked_array([chunk for piece in pieces for chunk in piece.positions.chunks], type=pa.string()),
        tuple(row for piece in pieces for row in piece.broken),
        shown,
        ignored,
    )


def _pieces(result: CursorResult[tuple[object, ...]], names: list[str], kinds: Mapping[str, str]) -> list[SourceTable]:
    pieces: list[SourceTable] = []
    first = 1
    for rows in result.partitions(_ROWS):
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        raw = pa.table({column: of_values(columns[column]) for column in kinds})
        pieces.append(typed(raw, numbered("row", first, len(rows)), kinds, row_text(raw)))
        first += len(rows)
    return pieces

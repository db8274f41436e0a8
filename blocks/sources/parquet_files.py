"""Parquet files: read in batches if values must be checked, and scanned directly otherwise."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.common.errors import Rejected
from blocks.sources.base import RowBatch, check_names, number_range, row_as_json, to_typed_batch
from blocks.sources.columns import is_text
from blocks.sources.file_listing import SourceFile
from runtime.duckdb_files import scan_sql
from runtime.values import BOOLEAN_TEXTS, LABEL_KINDS, SCIENTIFIC_PATTERN, WHOLE_FLOAT_PATTERN

BATCH_ROWS = 65_536
"""Rows of a batch."""

WHITESPACE: Final = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""The characters that `pyarrow.compute.utf8_trim_whitespace` removes."""

_BUFFER = 1 << 20
_MAX_INTEGER = 10**18 - 1
_RESERVED_NAMES = {"file_row_number", "file_index", "filename"}  # such a column would hide DuckDB's own
_ODD_TEXT_SQL = (
    "contains({0}, chr(0)) OR ((contains({0}, '.') OR contains({0}, '+')) AND "
    f"regexp_full_match({{0}}, '{WHOLE_FLOAT_PATTERN}|{SCIENTIFIC_PATTERN}'))"
)
_BOOLEAN_SQL = "{0} IN (" + ", ".join(f"'{text}'" for text in BOOLEAN_TEXTS) + ")"


def parquet_batches(file: SourceFile, kinds: Mapping[str, str], ignored: dict[str, None]) -> Iterator[RowBatch]:
    """Yield the declared columns of a Parquet file in batches; page checksums are verified if the file has them.

    Adds undeclared columns to `ignored`.

    Raises:
        Rejected: not a complete Parquet file, or missing or duplicate columns.
    """
    first, size = 1, file.path.stat().st_size
    with _open_parquet(file.path) as source:
        ignored.update(dict.fromkeys(check_names(source.schema_arrow.names, kinds, str(file.path))))
        share = size / max(source.metadata.num_rows, 1)
        for batch in source.iter_batches(batch_size=BATCH_ROWS, columns=list(kinds)):
            raw = pa.Table.from_batches([batch])
            try:
                piece = to_typed_batch(
                    raw, number_range(first, raw.num_rows), file.position_label, kinds, row_as_json(raw)
                )
            except Rejected as cause:
                raise Rejected(f"{file.path}: {cause}") from cause
            first += raw.num_rows
            yield replace(piece, bytes_read=int(share * raw.num_rows))


def columns_as_sql(
    files: Sequence[SourceFile], kinds: Mapping[str, str], ignored: dict[str, None]
) -> Mapping[str, str] | None:
    """Return each declared column as SQL over the files, or None if a value might be unreadable.

    Types and statistics prove that all values are readable: integers as numbers, numbers in a small enough range, text
    as text; one pass over the texts proves that all have their canonical form. Read here instead are files with page
    checksums, which the reader verifies, and with names that SQL confuses: nested ones, and those that differ by case
    alone. Adds undeclared columns to `ignored`; raises the errors of `parquet_batches` about whole files.
    """
    types, footers = None, []
    for file in files:
        with _open_parquet(file.path) as source:
            schema, footer = source.schema_arrow, source.metadata
        ignored.update(dict.fromkeys(check_names(schema.names, kinds, str(file.path))))
        file_types = {column: schema.field(column).type for column in kinds}
        nested = any(map(pa.types.is_nested, schema.types))
        confused = nested or len({name.lower() for name in schema.names}) < len(schema)
        reserved = any(name.lower() in _RESERVED_NAMES for name in schema.names)
        if types not in (None, file_types) or confused or reserved or has_checksums(file.path, footer):
            return None
        types = file_types
        footers.append(footer)
    expressions = {c: _as_sql(c, kind, types[c], footers) for c, kind in kinds.items()} if types else {}
    plain = {column: sql for column, sql in expressions.items() if sql is not None}
    if len(plain) < len(expressions) or (types and _have_odd_texts(files, kinds, types)):
        return None
    return plain


def _have_odd_texts(files: Sequence[SourceFile], kinds: Mapping[str, str], types: Mapping[str, pa.DataType]) -> bool:
    """Return whether a text has another canonical form, or none: see `runtime.values.label_text`."""
    import duckdb  # imported here, since it takes 0.1 s

    tests = []
    for column, kind in kinds.items():
        values = types[column].value_type if pa.types.is_dictionary(types[column]) else types[column]
        if kind in LABEL_KINDS and is_text(values):
            test = f"{_ODD_TEXT_SQL} OR {_BOOLEAN_SQL}" if kind == "category" else _ODD_TEXT_SQL
            tests.append(test.format(quote_name(column)))
    if not tests:
        return False
    found = f"SELECT 1 FROM {scan_sql([str(file.path) for file in files])} WHERE {' OR '.join(tests)} LIMIT 1"  # noqa: S608
    try:
        with duckdb.connect(config={"threads": 2}) as connection:
            return connection.execute(found).fetchone() is not None
    except duckdb.Error:  # a damaged file: the reader of batches names it, with its checksums
        return True


def has_checksums(path: Path, footer: pq.FileMetaData) -> bool:
    """Return whether the file's first page has a CRC: the fourth field of its header (Thrift, compact)."""
    if footer.num_row_groups == 0:
        return False
    chunk = footer.row_group(0).column(0)
    start = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
    with path.open("rb") as stream:
        stream.seek(start)
        header = stream.read(32)
    at = 0
    for _ in range(3):  # type, uncompressed size, compressed size: a field header, then a varint
        at += 1
        while at < len(header) and header[at] & 0x80:
            at += 1
        at += 1
    return header[at : at + 1] == b"\x15"


def min_and_max(footers: Sequence[pq.FileMetaData], column: str) -> tuple[Any, Any] | None:
    """Return the least and the greatest value by the statistics ((0, 0) without values); None if they are unknown."""
    lowest: list[Any] = []
    highest: list[Any] = []
    for footer in footers:
        for group in range(footer.num_row_groups):
            chunk = footer.row_group(group).column(_column_index(footer, column))
            statistics = chunk.statistics
            if statistics is None or (not statistics.has_min_max and statistics.null_count != chunk.num_values):
                return None
            try:
                limits = (statistics.min, statistics.max) if statistics.has_min_max else None
            except (OverflowError, ValueError):  # a time that Python cannot hold
                return None
            if limits:
                lowest.append(limits[0])
                highest.append(limits[1])
    return (min(lowest), max(highest)) if lowest else (0, 0)


def quote_name(name: str) -> str:
    """Return a column's name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _as_sql(column: str, kind: str, type_: pa.DataType, footers: Sequence[pq.FileMetaData]) -> str | None:
    name, whole = quote_name(column), pa.types.is_integer(type_)
    if kind == "number":
        real = pa.types.is_float32(type_) or pa.types.is_float64(type_)
        exact = f"CAST({name} AS DOUBLE)" if whole else None
        # Not nullif(…, 'NaN'): statistics ignore NaN, so DuckDB would assume that the comparison is always false.
        return f"CASE WHEN isnan({name}) THEN NULL ELSE CAST({name} AS DOUBLE) END" if real else exact
    if kind in LABEL_KINDS:
        plain = f"CAST({name} AS VARCHAR)" if whole else None
        values = type_.value_type if pa.types.is_dictionary(type_) else type_
        return _text_as_sql(name) if is_text(values) else plain
    if kind == "time":
        exact_time = pa.types.is_timestamp(type_) and type_.tz is not None and type_.unit in ("ms", "us")
        ends = min_and_max(footers, column) if exact_time else None
        return f"CAST({name} AS TIMESTAMPTZ)" if ends is not None else None
    to, least, most = ("TINYINT", 0, 1) if kind == "flag" else ("BIGINT", -_MAX_INTEGER, _MAX_INTEGER)
    limits = min_and_max(footers, column) if whole else None
    fits = limits is not None and least <= limits[0] and limits[1] <= most
    return f"CAST({name} AS {to})" if fits or (kind == "flag" and pa.types.is_boolean(type_)) else None


def _text_as_sql(name: str) -> str:
    """Return SQL in which blank text is null; the first letter decides for most texts."""
    blanks = " || ".join(f"chr({ord(character)})" for character in WHITESPACE)
    return f"CASE WHEN ({name} < '!' OR {name} >= chr(128)) AND trim({name}, {blanks}) = '' THEN NULL ELSE {name} END"


def _column_index(footer: pq.FileMetaData, column: str) -> int:
    group = footer.row_group(0)
    return next(i for i in range(footer.num_columns) if group.column(i).path_in_schema == column)  # no nested ones


@contextmanager
def _open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    if path.stat().st_size == 0:
        raise Rejected(f"{path}: the file is empty (0 bytes). Write it again.")
    try:
        # Without pre-buffering, only the part of a row group that is being read is in memory.
        with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False, buffer_size=_BUFFER) as file:
            yield file
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as cause:
        raise Rejected(f"{path}: this is not a whole Parquet file ({cause}). Write it again.") from cause

"""Reads JSON lines in blocks: one object per line; other lines and nested values become unreadable rows."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.sources.base import MAX_ROW_TEXT, RowBatch, UnreadableRow, missing_columns_error, to_typed_batch
from blocks.sources.columns import KIND_DESCRIPTIONS
from blocks.sources.file_listing import SourceFile
from blocks.sources.text_blocks import TextBlock, check_text, map_ordered, read_blocks

_NOT_AN_OBJECT = "not a JSON object"
_DUPLICATE_NAME = "duplicate name"


def json_batches(file: SourceFile, kinds: Mapping[str, str], ignored: dict[str, None]) -> Iterator[RowBatch]:
    """Yield the declared columns of a JSON lines file in batches. A missing name is null.

    Adds undeclared names to `ignored`.

    Raises:
        Rejected: not UTF-8 text, or no line of the file has a declared column.
    """
    all_names: dict[str, None] = {}
    read = partial(_read_block, kinds=kinds, place=file.position_label)
    rows = 0
    for batch, names in map_ordered(read, read_blocks(file, find_record_end=lambda data: data.rfind(b"\n") + 1)):
        all_names.update(dict.fromkeys(names))
        rows += batch.table.num_rows
        yield batch
    if rows and (missing := [column for column in kinds if column not in all_names]):
        raise missing_columns_error(str(file.path), missing, list(all_names))
    ignored.update(dict.fromkeys(name for name in all_names if name not in kinds))


def parse_json_rows(texts: pa.Array, kinds: Mapping[str, str]) -> tuple[pa.Table, list[str], pa.Array]:
    """Parse JSON objects into the declared columns as text, all names, and the reason why a row is unreadable.

    The reason is null for a readable row. Text, numbers, true and false are taken as written; null and missing names
    are null. A row with a list or an object as a column's value is unreadable.
    """
    import duckdb  # imported here, since it takes 0.1 s

    paths = [f"/{name.replace('~', '~0').replace('/', '~1')}" for name in kinds]
    with duckdb.connect(config={"threads": 1}) as engine:
        engine.register("lines", pa.table({"text": texts}))
        parsed: pa.Table = engine.sql(_PARSE_SQL, params={"paths": paths}).to_arrow_table()
        names = engine.execute(_NAMES_SQL).fetchall()
    values, types = parsed.column("found").combine_chunks(), parsed.column("types").combine_chunks()
    reasons = parsed.column("broken").combine_chunks()
    columns = {}
    for index, (column, kind) in enumerate(kinds.items()):
        columns[column] = pc.list_element(values, index) if len(values) else pa.array([], pa.string())
        nested = pc.is_in(pc.list_element(types, index), _NESTED) if len(values) else pa.array([], pa.bool_())
        reason = pc.binary_join_element_wise(
            f"not {KIND_DESCRIPTIONS[kind]}: column {column!r} holds '",
            pc.utf8_slice_codeunits(columns[column], 0, MAX_ROW_TEXT),
            "'",
            "",
        )
        reasons = pc.coalesce(reasons, pc.if_else(nested, reason, None))
    return pa.table(columns), [name for (name,) in names], reasons


_NESTED = pa.array(["OBJECT", "ARRAY"])
_IS_OBJECT_SQL = "CASE WHEN json_valid(text) THEN json_type(text) = 'OBJECT' ELSE false END"
_PARSE_SQL = f"""
    SELECT CASE WHEN good THEN json_extract_string(text, $paths) END AS found,
           CASE WHEN good THEN json_type(text, $paths) END AS types,
           CASE WHEN NOT good THEN '{_NOT_AN_OBJECT}'
                WHEN len(names) <> len(list_distinct(names)) THEN '{_DUPLICATE_NAME}' END AS broken
    FROM (SELECT text, {_IS_OBJECT_SQL} AS good, CASE WHEN {_IS_OBJECT_SQL} THEN json_keys(text) END AS names
          FROM lines)
"""  # noqa: S608  (constants only)
_NAMES_SQL = f"SELECT DISTINCT unnest(json_keys(text)) FROM (SELECT text FROM lines WHERE {_IS_OBJECT_SQL})"  # noqa: S608


def split_unreadable(
    reasons: pa.Array, place: str, numbers: pa.Array, text_of: Callable[[int], str]
) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], tuple[UnreadableRow, ...]]:
    """Return a mask of the readable rows, and the others as unreadable rows."""
    good = np.asarray(reasons.is_null().to_numpy(zero_copy_only=False), dtype=bool)
    rows = (
        UnreadableRow(f"{place} {numbers[i].as_py()}", reasons[i].as_py(), text_of(i)[:MAX_ROW_TEXT])
        for i in np.flatnonzero(~good).tolist()
    )
    return good, tuple(rows)


def _read_block(block: TextBlock, *, kinds: Mapping[str, str], place: str) -> tuple[RowBatch, list[str]]:
    check_text(block)
    lines, numbers = _lines(block)
    raw, names, reasons = parse_json_rows(lines, kinds)
    good, odd = split_unreadable(reasons, place, numbers, lambda i: lines[i].as_py())
    kept = pa.array(good)
    lines, numbers = lines.filter(kept), numbers.filter(kept)
    piece = to_typed_batch(raw.filter(kept), numbers, place, kinds, lambda i: lines[i].as_py())
    everything = sorted((*odd, *piece.unreadable_rows), key=lambda row: int(row.position.rpartition(" ")[2]))
    return replace(piece, unreadable_rows=tuple(everything), bytes_read=len(block.data)), names


def _lines(block: TextBlock) -> tuple[pa.Array, pa.Array]:
    """Return the non-blank lines, and their numbers."""
    lines = re.split(rb"\r?\n", block.data)
    full = [i for i, line in enumerate(lines) if line.strip()]
    numbers = pa.array(np.array(full, dtype=np.int64) + block.first_line)
    return pa.array([lines[i].decode() for i in full], type=pa.string()), numbers

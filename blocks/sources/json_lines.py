"""Rows as JSON objects: JSON lines, read in blocks, and the column `row` of a corrected quarantine file.

A line that is no object, and a row with a nested value, become unreadable rows.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.common.errors import Rejected
from blocks.sources.base import MAX_ROW_TEXT, RowBatch, Source, UnreadableRow, missing_columns_error, to_typed_batch
from blocks.sources.columns import Mask, canonical_column
from blocks.sources.file_listing import SourceFile
from blocks.sources.text_blocks import TextBlock, check_text, map_ordered, read_blocks
from runtime.values import KIND_DESCRIPTIONS, LABEL_KINDS

_NOT_AN_OBJECT = "not a JSON object"
_DUPLICATE_NAME = "duplicate name"
_NOT_A_NUMBER = "(?i)nan|inf"

QUARANTINE_COLUMNS: Mapping[str, str] = {"position": "text", "reason": "text", "key": "text", "row": "text"}
"""The columns that identify a quarantine file."""


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


def _parse_json_rows(texts: pa.Array, kinds: Mapping[str, str]) -> tuple[pa.Table, list[str], pa.Array]:
    """Parse JSON objects into the declared columns as text, all names, and the reason why a row is unreadable.

    The reason is null for a readable row. Null and missing names are null. A row is unreadable if a column's value is a
    list or an object, or NaN or Infinity, which some programs write although JSON does not have them.
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
        token = pc.list_element(types, index) if len(values) else pa.array([], pa.string())
        columns[column], failed = _with_number_texts(columns[column], token, kind)
        nested = pc.or_(pc.is_in(token, _NO_KEYS if kind == "key" else _NESTED), failed)
        reason = pc.binary_join_element_wise(
            f"not {KIND_DESCRIPTIONS[kind]}: column {column!r} holds '",
            pc.utf8_slice_codeunits(columns[column], 0, MAX_ROW_TEXT),
            "'",
            "",
        )
        reasons = pc.coalesce(reasons, pc.if_else(nested, reason, None))
    return pa.table(columns), [name for (name,) in names], reasons


def _with_number_texts(values: pa.Array, types: pa.Array, kind: str) -> tuple[pa.Array, pa.Array]:
    """Return the values, JSON numbers of a key or category in their canonical text, and which of them have none."""
    floats = pc.and_(pc.equal(types, "DOUBLE"), pc.invert(pc.match_substring_regex(values, "^-?[0-9]+$")))
    floats = pc.fill_null(floats, False)
    if kind not in LABEL_KINDS or not pc.any(floats).as_py():
        return values, pa.repeat(pa.scalar(False), len(values))
    tokens = values.filter(floats)
    found, failed = canonical_column(map(float, tokens.to_pylist()), kind)
    failed |= np.asarray(pc.match_substring_regex(tokens, _NOT_A_NUMBER))
    kept = pc.coalesce(found, tokens).combine_chunks()  # the reason shows the value
    return pc.replace_with_mask(values, floats, kept), _spread(failed, floats)


def _spread(failed: Mask, floats: pa.Array) -> pa.Array:
    spread = floats.to_numpy(zero_copy_only=False).copy()
    spread[spread] = failed
    return pa.array(spread)


_NESTED = pa.array(["OBJECT", "ARRAY"])
_NO_KEYS = pa.array(["OBJECT", "ARRAY", "BOOLEAN"])
_IS_OBJECT_SQL = "CASE WHEN json_valid(text) THEN json_type(text) = 'OBJECT' ELSE false END"
_REPEATED_NAME_SQL = "list_filter(names, lambda name: len(list_filter(names, lambda other: other = name)) > 1)[1]"
_PARSE_SQL = f"""
    SELECT CASE WHEN good THEN json_extract_string(text, $paths) END AS found,
           CASE WHEN good THEN json_type(text, $paths) END AS types,
           CASE WHEN NOT good THEN '{_NOT_AN_OBJECT}'
                WHEN len(names) <> len(list_distinct(names))
                THEN '{_DUPLICATE_NAME} ''' || {_REPEATED_NAME_SQL} || '''' END AS broken
    FROM (SELECT text, {_IS_OBJECT_SQL} AS good, CASE WHEN {_IS_OBJECT_SQL} THEN json_keys(text) END AS names
          FROM lines)
"""  # noqa: S608  (constants only)
_NAMES_SQL = f"SELECT DISTINCT unnest(json_keys(text)) FROM (SELECT text FROM lines WHERE {_IS_OBJECT_SQL})"  # noqa: S608


def _read_block(block: TextBlock, *, kinds: Mapping[str, str], place: str) -> tuple[RowBatch, list[str]]:
    check_text(block)
    lines = re.split(rb"\r?\n", block.data)
    full = [i for i, line in enumerate(lines) if line.strip()]
    numbers = pa.array(np.array(full, dtype=np.int64) + block.first_line)
    texts = pa.array([lines[i].decode() for i in full], type=pa.string())
    batch, names = _typed_batch(texts, numbers, place, kinds)
    return replace(batch, bytes_read=len(block.data)), names


def _typed_batch(
    texts: pa.Array, numbers: pa.Array, place: str, kinds: Mapping[str, str]
) -> tuple[RowBatch, list[str]]:
    """Return the rows of JSON objects, with those that cannot be read, and all names."""
    raw, names, reasons = _parse_json_rows(texts, kinds)
    unreadable = [
        UnreadableRow(f"{place} {numbers[i].as_py()}", reasons[i].as_py(), texts[i].as_py()[:MAX_ROW_TEXT])
        for i in np.flatnonzero(reasons.is_valid().to_numpy(zero_copy_only=False)).tolist()
    ]
    readable = reasons.is_null()
    kept = texts.filter(readable)
    batch = to_typed_batch(
        raw.filter(readable), numbers.filter(readable), place, kinds, lambda i: kept[i].as_py(), unreadable
    )
    return batch, names


class RedriveSource(Source):
    """The rows in the JSON of a quarantine file's column `row`."""

    def __init__(self, quarantine: Source, kinds: Mapping[str, str]) -> None:
        self.kinds, self._quarantine = kinds, quarantine
        self.description = f"corrected {quarantine.description}"
        self.position_labels, self.size_bytes = quarantine.position_labels, quarantine.size_bytes
        self._ignored: dict[str, None] = {}

    def content_digest(self) -> str:
        """Return the digest of the file."""
        return self._quarantine.content_digest()

    def batches(self) -> Iterator[RowBatch]:
        """Read the file and parse its JSON: see `Source.batches`."""
        for batch in self._quarantine.batches():
            yield self._parse(batch)

    def close(self) -> None:
        """Close the file."""
        self._quarantine.close()

    def check_unchanged(self) -> None:
        """Raise Unavailable if the file was changed: see `Source.check_unchanged`."""
        self._quarantine.check_unchanged()

    def _parse(self, batch: RowBatch) -> RowBatch:
        label = self._quarantine.position_labels[batch.file_index]
        texts = batch.table.column("row").combine_chunks().fill_null("")
        typed, names = _typed_batch(texts, batch.row_numbers, label, self.kinds)
        self._ignored.update(dict.fromkeys(name for name in names if name not in self.kinds))
        unreadable_rows = (*batch.unreadable_rows, *typed.unreadable_rows)
        return replace(typed, unreadable_rows=unreadable_rows, file_index=batch.file_index, bytes_read=batch.bytes_read)


def is_quarantine_file(source: Source) -> bool:
    """Return whether a source opened with `QUARANTINE_COLUMNS` has these columns; reads the first batch."""
    try:
        next(source.batches(), None)
    except Rejected:
        return False
    return True

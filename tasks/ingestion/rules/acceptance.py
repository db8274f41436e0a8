"""Which rows of a source enter the lake, and why the others do not: rows in = accepted + quarantined.

The first reason that applies to a row is its reason, in the order of `QUARANTINE_REASONS`. Rows are judged where they lie,
by an engine that reads their files (`judging` is its SQL), so that memory does not grow with the source.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.ingestion.rules import row_checks as judging
from tasks.ingestion.rules.quarantine import (
    FILE_COLUMN,
    QUARANTINE_REASONS,
    QUARANTINE_SCHEMA,
    REASON_CODE_COLUMN,
    ROW_COLUMN,
    quarantine_table,
    reason_summary,
    unreadable_table,
)
from tasks.ingestion.rules.row_checks import RowRules
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.buckets import BUCKET_COLUMN, key_text
from tasks.shared.rules.rows.content import table_content_digest

__all__ = [
    "QUARANTINE_REASONS",
    "EngineLike",
    "PartitionedRows",
    "RowRules",
    "StagedRows",
    "partition_rows",
    "table_content_digest",
]

_MAX_EXAMPLES = 3
_ROW_BITS = 40

RowPositions = npt.NDArray[np.int64]


class EngineLike(Protocol):
    """Computes SQL over Parquet files: `tables` maps a name in the SQL to its files. See `blocks.engines.base`."""

    def query(self, sql: str, tables: Mapping[str, Sequence[str]]) -> pa.Table:
        """Return a small answer."""

    def stream(self, sql: str, tables: Mapping[str, Sequence[str]]) -> pa.RecordBatchReader:
        """Return a large answer in bounded memory, in the order of the rows."""

    def write(self, sql: str, tables: Mapping[str, Sequence[str]], to: Path) -> int:
        """Write the answer as Parquet files into a new folder; return how many rows."""


@dataclass(frozen=True)
class StagedRows:
    """Typed rows in Parquet files.

    `relation` is SQL that gives the declared columns, `FILE_COLUMN` and `ROW` over `tables`; `rows` how many there are.
    `unreadable_files` holds the rows that could not be read (position, reason, text), `unreadable_rows_sql` how many. `file_labels` is
    what stands before a row's number, by file; `ignored` names the columns that nobody declared.
    """

    relation: str
    tables: Mapping[str, Sequence[str]]
    rows: int
    file_labels: Sequence[str]
    unreadable_files: Sequence[str] = ()
    unreadable_rows: int = 0
    ignored: Sequence[str] = ()


@dataclass(frozen=True)
class PartitionedRows:
    """What becomes of a source's rows: `rows_in` = `accepted` + `quarantined`. `notes` says it for people."""

    engine: EngineLike
    staged: StagedRows
    rules: RowRules
    tables: Mapping[str, Sequence[str]]
    counts: Mapping[str, int]
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows_in(self) -> int:
        """All rows of the source."""
        return self.staged.rows + self.staged.unreadable_rows

    @property
    def quarantined(self) -> int:
        """Rows that are set aside."""
        return sum(self.counts.values())

    @property
    def accepted(self) -> int:
        """Rows that enter the lake."""
        return self.rows_in - self.quarantined

    def accepted_rows(self) -> pa.RecordBatchReader:
        """Stream entity, features and target in the declared order, then `_bucket` (int32).

        Raises (while it is read):
            Refusal: there are not as many rows as were counted.
        """
        schema = self.rules.schema.append(pa.field(BUCKET_COLUMN, pa.int32()))
        return pa.RecordBatchReader.from_batches(schema, self._accepted(schema))

    def quarantined_rows(self) -> pa.RecordBatchReader:
        """Stream position, reason ("duplicate key: ..."), key and row (JSON): broken rows first, then the others."""
        return pa.RecordBatchReader.from_batches(QUARANTINE_SCHEMA, self._set_aside())

    def _accepted(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        quarantined_positions, seen = self._wrong_places(), 0
        for batch in self.engine.stream(judging.all_rows_sql(self.staged.relation, self.rules), self.tables):
            right = batch.select(schema.names)
            if len(quarantined_positions):
                right = right.filter(pa.array(~_is_in_positions(_row_positions(batch), quarantined_positions)))
            seen += right.num_rows
            yield right.cast(schema)
        if seen != self.accepted:
            raise Refusal(f"{self.rows_in} rows came in, {seen} + {self.quarantined} were accounted for")

    def _wrong_places(self) -> RowPositions:
        """Return where the rows with a reason are, in order: at most the share of all rows that may be wrong."""
        if not set(self.tables) & {judging.INVALID_TABLE, judging.DUPLICATES_TABLE}:
            return np.empty(0, dtype=np.int64)
        batches = self.engine.stream(judging.quarantined_positions_sql(list(self.tables)), self.tables)
        return np.sort(np.concatenate([_row_positions(batch) for batch in batches]))

    def _set_aside(self, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        if self.staged.unreadable_rows:
            for batch in self.engine.stream(
                judging.unreadable_rows_sql(limit), {"broken": self.staged.unreadable_files}
            ):
                yield from unreadable_table(pa.Table.from_batches([batch])).to_batches()
        if not set(self.tables) & {judging.INVALID_TABLE, judging.DUPLICATES_TABLE}:
            return
        sql = judging.quarantined_rows_sql(self.staged.relation, self.rules, list(self.tables), limit)
        for batch in self.engine.stream(sql, self.tables):
            table, rules = pa.Table.from_batches([batch]), self.rules
            rows = quarantine_table(table, rules.schema.names, rules.entity, rules.target, self.staged.file_labels)
            yield from rows.combine_chunks().to_batches()

    def quarantined_examples(self, most: int) -> Iterator[Mapping[str, str | None]]:
        """Return the first rows that are set aside, of the broken ones and of the others so many each."""
        for batch in self._set_aside(most):
            yield from batch.to_pylist()


def partition_rows(
    engine: EngineLike,
    staged: StagedRows,
    rules: RowRules,
    folder: Path,
    *,
    lake_keys: Sequence[str] = (),
    max_quarantined_share: float = 0.10,
) -> PartitionedRows:
    """Part the rows of a source into those that may enter the lake and those that may not.

    Args:
        engine: reads the files.
        staged: the rows.
        rules: what makes a row right.
        folder: empty, for what has to be written meanwhile: the places of wrong rows.
        lake_keys: Parquet files of the lake, in which the entity's column is.
        max_quarantined_share: the largest share of rows that may be quarantined.

    Raises:
        Refusal: the columns cannot be judged, too large a share would be quarantined, or nothing is left.
    """
    _check_arguments(rules, max_quarantined_share)
    tables = dict(staged.tables)
    work = _QueryWriter(engine, folder)
    if lake_keys:
        with_lake = {**tables, judging.LAKE_TABLE: lake_keys}
        tables |= work.made(judging.KNOWN_KEYS_TABLE, judging.known_keys_sql(staged.relation, rules), with_lake)
    known = judging.KNOWN_KEYS_TABLE in tables
    tables |= work.made(judging.INVALID_TABLE, judging.invalid_rows_sql(staged.relation, rules, known=known), tables)
    hashes = work.made(
        judging.REPEATED_HASHES_TABLE, judging.repeated_hashes_sql(staged.relation, rules, known=known), tables
    )
    if hashes:
        sql = judging.duplicate_rows_sql(staged.relation, rules, known=known)
        tables |= work.made(judging.DUPLICATES_TABLE, sql, {**tables, **hashes})
    counts = _reason_counts(engine, tables, staged.unreadable_rows)
    judged = PartitionedRows(engine, staged, rules, tables, counts, _count_notes(staged, counts))
    _check_quarantine_share(judged, max_quarantined_share)
    return judged


def _row_positions(batch: pa.RecordBatch) -> RowPositions:
    """Return file and row of each as one number."""
    file, row = (batch.column(name).to_numpy().astype(np.int64) for name in (FILE_COLUMN, ROW_COLUMN))
    places: RowPositions = (file << _ROW_BITS) + row
    return places


def _is_in_positions(places: RowPositions, wrong: RowPositions) -> npt.NDArray[np.bool_]:
    near = np.minimum(np.searchsorted(wrong, places), len(wrong) - 1)
    return np.asarray(wrong[near] == places)


@dataclass(frozen=True)
class _QueryWriter:
    """Writes answers into a folder."""

    engine: EngineLike
    folder: Path

    def made(self, name: str, sql: str, tables: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
        """Write an answer and return its files under its name; nothing when it has no row."""
        rows = self.engine.write(sql, tables, self.folder / name)
        return {name: tuple(sorted(map(str, (self.folder / name).glob("*.parquet"))))} if rows else {}


def _reason_counts(engine: EngineLike, tables: Mapping[str, Sequence[str]], broken: int) -> dict[str, int]:
    counts = {"broken": broken} if broken else {}
    if against := judging.quarantine_reasons_sql(list(tables)):
        sql = f"SELECT {REASON_CODE_COLUMN}, count(*) AS n FROM ({against}) w GROUP BY {REASON_CODE_COLUMN} ORDER BY {REASON_CODE_COLUMN}"  # noqa: S608
        found = engine.query(sql, tables).to_pylist()
        counts = {**{QUARANTINE_REASONS[row[REASON_CODE_COLUMN]]: row["n"] for row in found}, **counts}
    return counts


def _check_arguments(rules: RowRules, share: float) -> None:
    if BUCKET_COLUMN in rules.schema.names:
        raise Refusal("the name is taken by the lake", where=f"column {BUCKET_COLUMN!r}", remedy="Rename it.")
    key_text(pa.array([], type=rules.schema.field(rules.entity).type))
    if not 0 <= share <= 1:
        raise Refusal("the share that may be quarantined has to be 0 to 1", value=share)


def _check_quarantine_share(evaluation_result: PartitionedRows, most: float) -> None:
    rows_in, lost = evaluation_result.rows_in, evaluation_result.quarantined
    if lost < rows_in and lost / rows_in <= most:
        return
    examples = [f"{row['position']}: {row['reason']}" for row in evaluation_result.quarantined_examples(_MAX_EXAMPLES)]
    raise Refusal(
        f"{lost} of {rows_in} rows would be quarantined ({reason_summary(evaluation_result.counts)}), "
        + ("and none is left" if lost == rows_in else f"more than {most:.0%}"),
        remedy=f"Mend the source. {'; '.join(examples)}." if examples else "Check the source.",
    )


def _count_notes(staged: StagedRows, counts: Mapping[str, int]) -> dict[str, str]:
    rows_in, lost = staged.rows + staged.unreadable_rows, sum(counts.values())
    notes = {"rows in": str(rows_in), "accepted": str(rows_in - lost), "quarantined": str(lost)}
    if lost:
        notes["reasons"] = reason_summary(counts)
    if staged.ignored:
        notes["columns dropped"] = ", ".join(staged.ignored)
    return notes

"""The split of a source into accepted and quarantined rows: rows in = accepted + quarantined.

The reason of a row is the first of `QUARANTINE_REASONS` that applies. An engine checks the rows in their files, by
the SQL of `row_checks`, so that memory does not grow with the source.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.ingestion.rules import row_checks
from tasks.ingestion.rules.lookalikes import lookalike_notes
from tasks.ingestion.rules.placeholders import (
    Placeholder,
    find_placeholders,
    placeholder_sentence,
    sample_sql,
    unreadable_placeholders,
)
from tasks.ingestion.rules.quarantine import (
    FILE_COLUMN,
    KNOWN_KEY,
    QUARANTINE_REASONS,
    QUARANTINE_SCHEMA,
    REASON_CODE_COLUMN,
    ROW_COLUMN,
    quarantine_table,
    reason_summary,
    unreadable_table,
)
from tasks.ingestion.rules.row_checks import EngineLike, RowRules
from tasks.shared.rules.model.types import is_reserved_column
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.buckets import BUCKET_COLUMN, key_text

_MAX_EXAMPLES = 3
_ROW_BITS = 40

RowPositions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StagedRows:
    """Typed rows in Parquet files.

    Attributes:
        relation: SQL over `tables` for the declared columns, `FILE_COLUMN` and `ROW_COLUMN`.
        tables: the files of each table in that SQL.
        rows: how many readable rows there are.
        file_labels: the text before a row's number, by file.
        unreadable_files: Parquet files of the rows that could not be read: position, reason, text.
        unreadable_rows: how many rows could not be read.
        ignored: columns of the source that the model does not declare.
        changed_columns: columns with values that an earlier release stored in another form.
        repeated: how many rows were left out, because the lookback read them again.
    """

    relation: str
    tables: Mapping[str, Sequence[str]]
    rows: int
    file_labels: Sequence[str]
    unreadable_files: Sequence[str] = ()
    unreadable_rows: int = 0
    ignored: Sequence[str] = ()
    changed_columns: frozenset[str] = frozenset()
    repeated: int = 0


@dataclass(frozen=True)
class PartitionedRows:
    """The rows of a source, split: `rows_in` = `accepted` + `quarantined`. `notes` are the counts as text."""

    engine: EngineLike
    staged: StagedRows
    rules: RowRules
    tables: Mapping[str, Sequence[str]]
    counts: Mapping[str, int]
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows_in(self) -> int:
        """Number of all rows of the source."""
        return self.staged.rows + self.staged.unreadable_rows

    @property
    def quarantined(self) -> int:
        """Number of quarantined rows."""
        return sum(self.counts.values())

    @property
    def accepted(self) -> int:
        """Number of accepted rows."""
        return self.rows_in - self.quarantined

    def accepted_rows(self) -> pa.RecordBatchReader:
        """Return the accepted rows as a stream: the declared columns in order, then `_bucket` (int32).

        Raises (while it is read):
            Refusal: the rows are not as many as were counted.
        """
        schema = self.rules.schema.append(pa.field(BUCKET_COLUMN, pa.int32()))
        return pa.RecordBatchReader.from_batches(schema, self._accepted(schema))

    def quarantined_rows(self) -> pa.RecordBatchReader:
        """Return the quarantined rows as a stream of `QUARANTINE_SCHEMA`: unreadable rows first, then the others."""
        return pa.RecordBatchReader.from_batches(QUARANTINE_SCHEMA, self._quarantined())

    def _accepted(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        quarantined_positions, accepted = self._quarantined_positions(), 0
        for batch in self.engine.stream(row_checks.all_rows_sql(self.staged.relation, self.rules), self.tables):
            valid = batch.select(schema.names)
            if len(quarantined_positions):
                valid = valid.filter(pa.array(~_is_in_positions(_row_positions(batch), quarantined_positions)))
            accepted += valid.num_rows
            yield valid.cast(schema)
        if accepted != self.accepted:
            raise Refusal(
                f"{self.rows_in} rows were read, but {accepted} accepted + {self.quarantined} quarantined "
                "do not add up to that"
            )

    def _quarantined_positions(self) -> RowPositions:
        """Return the sorted positions of the invalid rows. They fit in memory: their share is limited."""
        if not set(self.tables) & {row_checks.INVALID_TABLE, row_checks.DUPLICATES_TABLE}:
            return np.empty(0, dtype=np.int64)
        batches = self.engine.stream(row_checks.quarantined_positions_sql(list(self.tables)), self.tables)
        return np.sort(np.concatenate([_row_positions(batch) for batch in batches]))

    def _quarantined(self, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        if self.staged.unreadable_rows:
            for batch in self.engine.stream(
                row_checks.unreadable_rows_sql(limit), {row_checks.UNREADABLE_TABLE: self.staged.unreadable_files}
            ):
                yield from unreadable_table(pa.Table.from_batches([batch])).to_batches()
        if not set(self.tables) & {row_checks.INVALID_TABLE, row_checks.DUPLICATES_TABLE}:
            return
        sql = row_checks.quarantined_rows_sql(self.staged.relation, self.rules, list(self.tables), limit)
        for batch in self.engine.stream(sql, self.tables):
            table, rules = pa.Table.from_batches([batch]), self.rules
            rows = quarantine_table(table, rules.schema.names, rules.entity, rules.target, self.staged.file_labels)
            yield from rows.combine_chunks().to_batches()

    def placeholder_hint(self, kinds: Mapping[str, str]) -> str:
        """Return a sentence about values that may stand for missing ones, in the first rows and in unreadable ones."""
        found = self.unreadable_placeholders()
        if self.staged.rows:
            rows = self.engine.query(sample_sql(kinds, self.staged.relation), self.staged.tables)
            found += find_placeholders(kinds, rows)
        return placeholder_sentence(found)

    def unreadable_placeholders(self) -> list[Placeholder]:
        """Return the placeholders for which rows could not be read, the most frequent first."""
        if not self.staged.unreadable_rows:
            return []
        tables = {row_checks.UNREADABLE_TABLE: self.staged.unreadable_files}
        rows = self.engine.query(row_checks.unreadable_reasons_sql(), tables).to_pylist()
        return unreadable_placeholders((str(row["reason"]), int(row["n"])) for row in rows)

    def quarantined_examples(self, most: int) -> Iterator[Mapping[str, str | None]]:
        """Yield the first quarantined rows: at most `most` unreadable ones and `most` others."""
        for batch in self._quarantined(most):
            yield from batch.to_pylist()


def partition_rows(
    engine: EngineLike,
    staged: StagedRows,
    rules: RowRules,
    folder: Path,
    *,
    lake_keys: Sequence[str] = (),
    lake_columns: Collection[str] = (),
    max_quarantined_share: float = 0.10,
    corrections: bool = False,
) -> PartitionedRows:
    """Split the rows of a source into accepted and quarantined ones.

    Args:
        engine: reads the files.
        staged: the rows.
        rules: what a valid row looks like.
        folder: an empty folder for intermediate results, such as the positions of invalid rows.
        lake_keys: Parquet files of the lake that hold the columns of the unique key.
        lake_columns: the lake's columns, if it has rows of a release with other forms of values; these are looked for.
        max_quarantined_share: the largest share of rows that may be quarantined, of those that were read again, too.
        corrections: a row with a known key is a correction, as the lookback finds it: it does not count as a fault.

    Raises:
        Refusal: the columns cannot be checked, the lake holds the same values in an old form, too large a share would
            be quarantined, or no row is left.
    """
    _check_arguments(rules, max_quarantined_share)
    staged = replace(staged, relation=row_checks.with_declared_classes(staged.relation, rules))
    tables = dict(staged.tables)
    if lake_keys:
        with_lake = {**tables, row_checks.LAKE_TABLE: lake_keys}
        _refuse_old_forms(engine, staged, rules, with_lake, lake_columns)
        sql = row_checks.known_keys_sql(staged.relation, rules)
        tables |= _write_result(engine, sql, with_lake, folder / row_checks.KNOWN_KEYS_TABLE)
    known = row_checks.KNOWN_KEYS_TABLE in tables
    sql = row_checks.invalid_rows_sql(staged.relation, rules, known=known)
    tables |= _write_result(engine, sql, tables, folder / row_checks.INVALID_TABLE)
    sql = row_checks.repeated_hashes_sql(staged.relation, rules, known=known)
    if hashes := _write_result(engine, sql, tables, folder / row_checks.REPEATED_HASHES_TABLE):
        sql = row_checks.duplicate_rows_sql(staged.relation, rules, known=known)
        tables |= _write_result(engine, sql, {**tables, **hashes}, folder / row_checks.DUPLICATES_TABLE)
    counts = _reason_counts(engine, tables, staged.unreadable_rows)
    notes = {
        **_count_notes(staged, counts),
        **lookalike_notes(engine, staged.relation, staged.tables, staged.ignored, rules),
    }
    partitioned = PartitionedRows(engine, staged, rules, tables, counts, notes)
    _check_quarantine_share(partitioned, max_quarantined_share, corrections=corrections)
    return partitioned


def _row_positions(batch: pa.RecordBatch) -> RowPositions:
    """Return the position of each row, file and row number, as one integer."""
    file, row = (batch.column(name).to_numpy().astype(np.int64) for name in (FILE_COLUMN, ROW_COLUMN))
    positions: RowPositions = (file << _ROW_BITS) + row
    return positions


def _is_in_positions(positions: RowPositions, invalid: RowPositions) -> npt.NDArray[np.bool_]:
    """Return for each position whether it is among the sorted `invalid` ones."""
    nearest = np.minimum(np.searchsorted(invalid, positions), len(invalid) - 1)
    return np.asarray(invalid[nearest] == positions)


def _write_result(
    engine: EngineLike, sql: str, tables: Mapping[str, Sequence[str]], to: Path
) -> dict[str, Sequence[str]]:
    """Write a query's result and return its files under the folder's name; an empty mapping when it has no row."""
    return {to.name: tuple(sorted(map(str, to.glob("*.parquet"))))} if engine.write(sql, tables, to) else {}


def _reason_counts(engine: EngineLike, tables: Mapping[str, Sequence[str]], unreadable: int) -> dict[str, int]:
    counts = {"unreadable": unreadable} if unreadable else {}
    if reasons := row_checks.quarantine_reasons_sql(list(tables)):
        code = REASON_CODE_COLUMN
        sql = f"SELECT {code}, count(*) AS n FROM ({reasons}) w GROUP BY {code} ORDER BY {code}"  # noqa: S608
        by_code = engine.query(sql, tables).to_pylist()
        counts = {**{QUARANTINE_REASONS[row[code]]: row["n"] for row in by_code}, **counts}
    return counts


def _refuse_old_forms(
    engine: EngineLike,
    staged: StagedRows,
    rules: RowRules,
    tables: Mapping[str, Sequence[str]],
    lake_columns: Collection[str],
) -> None:
    """Refuse rows whose values the lake holds in the form of an earlier release: they would be two values."""
    changed = sorted((staged.changed_columns - {rules.target}) & set(lake_columns))
    columns = {**dict.fromkeys(changed, False), **({rules.entity: True} if rules.entity in lake_columns else {})}
    for column, same in columns.items():
        sql = row_checks.old_forms_sql(staged.relation, column, same=same)
        if old := engine.query(sql, tables).column("old").to_pylist():
            raise Refusal(
                "the data set holds values of this column in the form of an earlier release",
                where=f"column {column!r}",
                value=old,
                remedy="Ingest all its sources anew under another data.dataset: docs/values.md has the forms.",
            )


def _check_arguments(rules: RowRules, share: float) -> None:
    if reserved := next(filter(is_reserved_column, rules.schema.names), None):
        raise Refusal("Ratchet adds a column of this name itself", where=f"column {reserved!r}", remedy="Rename it.")
    key_text(pa.array([], type=rules.schema.field(rules.entity).type))
    if not 0 <= share <= 1:
        raise Refusal("the largest share of quarantined rows must be from 0 to 1", value=share)


def _check_quarantine_share(partitioned: PartitionedRows, max_share: float, *, corrections: bool) -> None:
    rows_in, lost = partitioned.rows_in, partitioned.quarantined
    read = rows_in + partitioned.staged.repeated
    faults = lost - (partitioned.counts.get(KNOWN_KEY, 0) if corrections else 0)
    if rows_in and (not faults or (faults < read and faults / read <= max_share)):
        return
    examples = [f"{row['position']}: {row['reason']}" for row in partitioned.quarantined_examples(_MAX_EXAMPLES)]
    reasons = reason_summary(partitioned.counts)
    if not rows_in:
        problem = "the source has no rows"
    elif lost == read:
        rows = "the only row" if rows_in == 1 else f"all {rows_in} rows"
        problem = f"{rows} would be quarantined ({reasons})"
    else:
        problem = f"{lost} of {read} rows would be quarantined ({reasons}), more than {max_share:.0%}"
    hint = placeholder_sentence(partitioned.unreadable_placeholders())
    remedy = f"Correct the source. {'; '.join(examples)}. {hint}".strip() if examples else "Check the source."
    raise Refusal(problem, remedy=remedy)


def _count_notes(staged: StagedRows, counts: Mapping[str, int]) -> dict[str, str]:
    rows_in, lost = staged.rows + staged.unreadable_rows, sum(counts.values())
    notes = {"rows in": str(rows_in), "accepted": str(rows_in - lost), "quarantined": str(lost)}
    if lost:
        notes["reasons"] = reason_summary(counts)
    if staged.repeated:
        notes["read again"] = str(staged.repeated)
    if staged.ignored:
        notes["columns dropped"] = ", ".join(staged.ignored)
    return notes

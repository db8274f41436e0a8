"""Which rows of a source enter the lake, and why the others do not: rows in = accepted + quarantined.

The first reason that applies to a row is its reason, in the order of `REASONS`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.logic.buckets import BUCKET_COLUMN, tier_buckets
from tasks.logic.content import content_key
from tasks.logic.quarantine import REASONS, Broken, Indices, JudgedRows, quarantine_table, tally
from tasks.logic.refusal import Refusal

__all__ = ["REASONS", "Broken", "Ingested", "accept", "content_key"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Ingested:
    """What became of a source's rows.

    `accepted`: entity, features and target in the declared order, then `_bucket` (int32).
    `quarantined`: text columns position, reason ("duplicate key: ..."), key (null when unknown) and row (JSON).
    `rows_in` = rows of both. `notes` says it for people, and goes on the snapshot.
    """

    accepted: pa.Table
    quarantined: pa.Table
    rows_in: int
    notes: Mapping[str, str]


def accept(
    table: pa.Table,
    positions: pa.ChunkedArray | Sequence[str],
    *,
    entity: str,
    target: str | None,
    kinds: Mapping[str, str],
    existing_keys: pa.Array | pa.ChunkedArray | None,
    classes: Sequence[object] | None = None,
    broken: Sequence[Broken] = (),
    most_quarantined: float = 0.10,
) -> Ingested:
    """Part the rows of a source into those that may enter the lake and those that may not.

    Args:
        table: what `blocks.sources` read: text, float64, int64 or int8 columns. Others than the declared ones
            are dropped, and named in the notes.
        positions: where each row of `table` is in its source.
        entity: the column that names who the row is about: integer or text, unique.
        target: the column to be predicted, or None when there is none (rows to be scored).
        kinds: the declared columns and their kinds, in order; entity and target may be among them.
        existing_keys: the keys that the lake holds.
        classes: what the target may be, in classification.
        broken: rows that the source could not read; they count as quarantined.
        most_quarantined: the largest share of rows that may be quarantined.

    Raises:
        Refusal: a declared column is missing, a number column is not of numbers, too large a share would be
            quarantined, or nothing is left.
    """
    declared = [entity, *(c for c in kinds if c not in (entity, target)), *([target] if target else [])]
    _check(table, positions, declared, kinds, most_quarantined)
    chosen = table.select(declared)
    where = positions if isinstance(positions, pa.ChunkedArray) else pa.chunked_array([pa.array(positions)])
    rows = _judge(JudgedRows(chosen, where, entity, *_none(chosen)), target, classes, existing_keys)
    out = np.flatnonzero(rows.reasons >= 0)
    _check_share(rows, out, broken, most_quarantined)
    accepted = chosen.filter(pa.array(rows.reasons < 0))
    bucket = pa.array(tier_buckets(accepted.column(entity)), type=pa.int32())
    quarantined = quarantine_table(rows, out, broken)
    rows_in = table.num_rows + len(broken)
    if rows_in != accepted.num_rows + quarantined.num_rows:
        raise Refusal(f"{rows_in} rows came in, {accepted.num_rows} + {quarantined.num_rows} were accounted for")
    notes = _notes(rows, out, broken, [c for c in table.column_names if c not in declared])
    return Ingested(accepted.append_column(BUCKET_COLUMN, bucket), quarantined, rows_in, notes)


def _none(table: pa.Table) -> tuple[npt.NDArray[np.int8], Indices]:
    return np.full(table.num_rows, -1, dtype=np.int8), np.full(table.num_rows, -1, dtype=np.int64)


def _check(
    table: pa.Table, positions: Sequence[str], declared: list[str], kinds: Mapping[str, str], share: float
) -> None:
    names = table.column_names
    for column in declared:
        if names.count(column) != 1:
            near = get_close_matches(column, names, n=1, cutoff=0.5)
            problem = "the declared column is missing" if column not in names else "the column is there twice"
            raise Refusal(problem, where=f"column {column!r}", remedy=f"Did you mean {near[0]!r}?" if near else "")
        kind, found = kinds.get(column), table.schema.field(column).type
        numeric = pa.types.is_floating(found) or pa.types.is_integer(found)
        if numeric != (kind in ("number", "flag", "integer")) and kind is not None:
            raise Refusal(f"a {kind} cannot be of type {found}", where=f"column {column!r}")
    if BUCKET_COLUMN in declared:
        raise Refusal("the name is taken by the lake", where=f"column {BUCKET_COLUMN!r}", remedy="Rename it.")
    if len(positions) != table.num_rows:
        raise Refusal(f"{table.num_rows} rows have {len(positions)} positions")
    if not 0 <= share <= 1:
        raise Refusal("the share that may be quarantined has to be 0 to 1", value=share)


def _judge(
    rows: JudgedRows,
    target: str | None,
    classes: Sequence[object] | None,
    existing_keys: pa.Array | pa.ChunkedArray | None,
) -> JudgedRows:
    keys = rows.table.column(rows.entity)
    _mark(rows, "null entity key", _blank(keys))
    if existing_keys is not None and len(existing_keys):
        _mark(rows, "key already in the lake", _known(keys, existing_keys))
    if target:
        values = rows.table.column(target)
        _mark(rows, "null target", _mask(pc.is_null(values)))
        if classes is not None:
            _mark(rows, "target outside the classes", ~_mask(pc.is_in(values, value_set=_set(classes, values))))
    for column in rows.table.columns:
        if pa.types.is_floating(column.type):
            _mark(rows, "not finite", ~_mask(pc.is_finite(column)) & _mask(pc.is_valid(column)))
    _mark_duplicates(rows, keys)
    return rows


def _mark(rows: JudgedRows, reason: str, mask: Mask) -> None:
    rows.reasons[mask & (rows.reasons < 0)] = REASONS.index(reason)


def _mark_duplicates(rows: JudgedRows, keys: pa.ChunkedArray) -> None:
    """Keep the first row of a key among those that have no reason against them."""
    good = np.flatnonzero(rows.reasons < 0)
    codes = keys.combine_chunks().dictionary_encode().indices.take(good).to_numpy()
    _, first, group = np.unique(codes, return_index=True, return_inverse=True)
    rows.first_of[good] = good[first[group]]
    repeated = np.zeros(len(rows.reasons), dtype=bool)
    repeated[good] = rows.first_of[good] != good
    _mark(rows, "duplicate key", repeated)


def _check_share(rows: JudgedRows, out: Indices, broken: Sequence[Broken], most: float) -> None:
    rows_in, lost = rows.table.num_rows + len(broken), len(out) + len(broken)
    if lost < rows_in and lost / rows_in <= most:
        return
    examples = [f"{row.position}: {row.reason}" for row in broken[:3]]
    examples += [f"{rows.positions[i].as_py()}: {rows.detail(i)}" for i in out[:3].tolist()]
    raise Refusal(
        f"{lost} of {rows_in} rows would be quarantined ({tally(rows, out, broken)}), "
        + ("and none is left" if lost == rows_in else f"more than {most:.0%}"),
        remedy=f"Mend the source. {'; '.join(examples)}." if examples else "Check the source.",
    )


def _notes(rows: JudgedRows, out: Indices, broken: Sequence[Broken], extras: Sequence[str]) -> dict[str, str]:
    rows_in, lost = rows.table.num_rows + len(broken), len(out) + len(broken)
    notes = {"rows in": str(rows_in), "accepted": str(rows_in - lost), "quarantined": str(lost)}
    if lost:
        notes["reasons"] = tally(rows, out, broken)
    if extras:
        notes["columns dropped"] = ", ".join(extras)
    return notes


def _blank(keys: pa.ChunkedArray) -> Mask:
    empty = _mask(pc.is_null(keys))
    return empty if pa.types.is_integer(keys.type) else empty | _mask(pc.equal(keys.cast(pa.string()), ""))


def _known(keys: pa.ChunkedArray, existing: pa.Array | pa.ChunkedArray) -> Mask:
    known = existing.combine_chunks() if isinstance(existing, pa.ChunkedArray) else existing
    if known.type != keys.type:
        keys, known = keys.cast(pa.string()), known.cast(pa.string())
    return _mask(pc.is_in(keys, value_set=known))


def _set(classes: Sequence[object], values: pa.ChunkedArray) -> pa.Array:
    text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    try:
        return pa.array([str(c) for c in classes] if text else list(classes)).cast(values.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as cause:
        raise Refusal(f"the classes cannot be values of type {values.type}", value=list(classes)) from cause


def _mask(values: pa.ChunkedArray) -> Mask:
    return np.asarray(pc.fill_null(values, False).to_numpy(), dtype=bool)

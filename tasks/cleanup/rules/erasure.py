"""Rules of an erasure: in which data sets an entity's rows are, how they are recognised, and the report."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.shared.rules.model.data import DataSpec
from tasks.shared.rules.model.spec import ModelSpec

Mask = npt.NDArray[np.bool_]


class ErasedLike(Protocol):
    """What was erased from one data set, as `blocks.lake.base.ErasedRows` has it."""

    @property
    def dataset(self) -> str:
        """The data set."""

    @property
    def rows(self) -> int:
        """Number of erased rows."""

    @property
    def snapshots(self) -> int:
        """Number of snapshots that held them."""


@dataclass(frozen=True)
class ErasurePlace:
    """A data set that may hold an entity's rows: by the column of its key, or in a quarantine by the rows' text."""

    dataset: str
    column: str
    is_quarantine: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns by which rows are recognised."""
        return ("key", "row") if self.is_quarantine else (self.column,)

    def selects(self, rows: pa.Table, key: str) -> Mask:
        """Return which rows are about the entity. A quarantined row is when its text contains the key as a word."""
        if not self.is_quarantine:
            return _equals(rows[self.column], key)
        return _equals(rows["key"], key) | _mentions(rows["row"], key)


def erasure_places(specs: Iterable[ModelSpec], existing: Iterable[str]) -> tuple[ErasurePlace, ...]:
    """Return the existing data sets with rows of the models' entities, each once, sorted."""
    found: dict[str, ErasurePlace] = {}
    for spec in specs:
        for dataset, column in entity_columns(spec.data).items():
            found[dataset] = ErasurePlace(dataset, column)
            found[f"{dataset}-quarantine"] = ErasurePlace(f"{dataset}-quarantine", column, is_quarantine=True)
        for kind in ("predictions", "inference"):
            found[spec.own_dataset(kind)] = ErasurePlace(spec.own_dataset(kind), spec.data.entity)
    return tuple(found[dataset] for dataset in sorted({*found} & {*existing}))


def entity_columns(data: DataSpec) -> Mapping[str, str]:
    """Return the data sets that are about the model's entity, with the column of its key in each."""
    joined = {table.dataset: table.keys[data.entity] for table in data.tables.values() if data.entity in table.keys}
    return {data.dataset: data.entity, **joined, **({data.publish: data.entity} if data.publish else {})}


def related_models(spec: ModelSpec, others: Iterable[ModelSpec]) -> tuple[ModelSpec, ...]:
    """Return the model and the others whose main table is a data set about the same entity, directly or by another."""
    found, known, waiting = [spec], {*entity_columns(spec.data)}, list(others)
    while related := [each for each in waiting if each.data.dataset in known]:
        found += related
        known |= {dataset for each in related for dataset in entity_columns(each.data)}
        waiting = [each for each in waiting if each not in related]
    return tuple(found)


def erasure_text(changes: Iterable[ErasedLike], copies: int, left: Iterable[str], *, dry_run: bool) -> str:
    """Return the report of an erasure as lines of text."""
    verb = "would be erased" if dry_run else "erased"
    lines = [f"{each.dataset}: {each.rows:,} rows of {each.snapshots:,} snapshots {verb}" for each in changes]
    if not dry_run:
        lines.append(f"{copies:,} copies were removed (tiers, inputs of jobs, reference data): they are made again")
    return "\n".join([*(lines or ["no data set of the model exists"]), *(f"left: {each}" for each in left)])


def _equals(values: pa.ChunkedArray, key: str) -> Mask:
    text = pc.cast(values, pa.string())
    return np.asarray(pc.fill_null(pc.equal(text, key), False).to_numpy(), dtype=bool)


def _mentions(values: pa.ChunkedArray, key: str) -> Mask:
    """Return which texts contain the key, or the key as JSON writes it, with no letter, digit or _ beside it."""
    spellings = sorted({re.escape(key), re.escape(json.dumps(key, ensure_ascii=False)[1:-1])})
    pattern = rf"(^|[^\pL\pN_])({'|'.join(spellings)})([^\pL\pN_]|$)"
    return np.asarray(pc.fill_null(pc.match_substring_regex(values, pattern), False).to_numpy(), dtype=bool)

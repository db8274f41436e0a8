"""Rules of an erasure: in which data sets an entity's rows are, how they are recognised, and the report."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from runtime.values import NoCanonicalForm, canonical
from tasks.shared.rules.model.data import DataSpec
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal

_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)")

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
        """Return which rows are about the entity, whose key is in any of its forms (see `key_forms`).

        A quarantined row whose key could not be read is, when its text contains the key as a word.
        """
        if not self.is_quarantine:
            return _equals(rows[self.column], key)
        return _equals(rows["key"], key) | _mentions(rows["row"].to_pylist(), self.column, key)


def key_forms(key: str) -> tuple[str, ...]:
    """Return the key as it is given and, where it has one, in its canonical form.

    Data sets of an earlier release hold keys as their source wrote them: 1000.0, or 1E+05, which has no canonical form.

    Raises:
        Refusal: the key is no text, so that no data set can hold it.
    """
    try:
        key.encode()
    except UnicodeEncodeError:
        remedy = "Give it in UTF-8: it holds bytes that are no characters."
        raise Refusal("this is not the key of an entity", where="erase", remedy=remedy) from None
    try:
        return tuple(sorted({key, str(canonical(key, "key"))}))
    except NoCanonicalForm:
        return (key,)


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
    """Return which values are the key in any form, also as a whole number written as a float, such as 1000.00."""
    if pa.types.is_floating(values.type):  # Arrow writes a long one in scientific notation
        text = pa.chunked_array([[None if value is None else repr(value) for value in values.to_pylist()]], pa.string())
    else:
        text = pc.cast(values, pa.string())
    forms = key_forms(key)
    patterns = [re.escape(form) for form in forms]
    patterns += [rf"{'-?' if form == '0' else ''}{form}\.0+" for form in forms if _WHOLE_NUMBER.fullmatch(form)]
    found = pc.match_substring_regex(text, rf"^({'|'.join(patterns)})$")
    return np.asarray(pc.fill_null(found, False).to_numpy(), dtype=bool)


def _mentions(rows: Iterable[str | None], column: str, key: str) -> Mask:
    """Return which quarantined rows are about the entity: by the column of its key, else by their text.

    The text contains a form of the key with no letter, digit or _ beside it; 1000.5 is not about the key 1000, and in
    1000,5 the comma may be that between two fields.
    """
    forms = key_forms(key)
    spellings = "|".join(sorted({re.escape(form) for form in forms}))
    number = all(form.isdecimal() for form in forms if not form.endswith(".0"))
    around = (r"(?<!\w)(?<![0-9]\.)", r"(?:\.0+)?(?!\w)(?!\.[0-9])") if number else (r"(?<!\w)", r"(?!\w)")
    word = re.compile(f"{around[0]}(?:{spellings}){around[1]}")

    def is_about(text: str) -> bool:
        row = _mapping(text)
        line = str(row.get("text", text))
        for found in (row, _mapping(line)):
            if found.get(column) is not None:
                return _canonical_or_text(found[column]) in forms
        return bool(word.search(line))

    return np.fromiter((text is not None and is_about(text) for text in rows), dtype=bool)


def _mapping(text: str) -> dict[str, Any]:
    """Return the object that a text is in JSON; an empty one when it is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _canonical_or_text(value: object) -> str:
    try:
        return str(canonical(value, "key"))
    except NoCanonicalForm:
        return str(value)

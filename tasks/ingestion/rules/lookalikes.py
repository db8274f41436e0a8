"""Values and names that differ in blanks, capitals or Unicode form alone stay apart, and the report names them."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from tasks.ingestion.rules import row_checks
from tasks.ingestion.rules.row_checks import EngineLike, RowRules

LOOKALIKE_NOTE = "differ in blanks, capitals or Unicode form alone"
"""The note about values that are easily taken for one another."""


def lookalike_notes(
    engine: EngineLike, relation: str, tables: Mapping[str, Sequence[str]], ignored: Sequence[str], rules: RowRules
) -> dict[str, str]:
    """Return the note about such values of the rows' texts, and such names among the `ignored` columns of a source.

    `relation` is SQL over `tables` for the rows.
    """
    found = []
    texts = [each.name for each in rules.schema if pa.types.is_string(each.type)]
    for column in [name for name in texts if name != rules.target or rules.classes is None]:
        if column == rules.entity and not _may_look_alike(engine, relation, tables, column):
            continue
        (groups,) = engine.query(row_checks.lookalikes_sql(relation, column), tables).to_pylist()
        if groups["n"]:
            found.append(f"column {column!r}: {groups['n']}, such as {groups['one']!r} and {groups['other']!r}")
    declared = {name.strip().lower(): name for name in rules.schema.names}
    similar = [(name, declared[name.strip().lower()]) for name in ignored if name.strip().lower() in declared]
    found += [f"name {name!r} beside the declared {other!r}" for name, other in similar]
    return {LOOKALIKE_NOTE: "; ".join(found)} if found else {}


def _may_look_alike(engine: EngineLike, relation: str, tables: Mapping[str, Sequence[str]], column: str) -> bool:
    """Return whether keys may look alike: a scan, while finding them is an aggregation over all of them."""
    for capitals in (False, True):
        (found,) = engine.query(row_checks.letters_sql(relation, column, capitals=capitals), tables).to_pylist()
        if found["odd"]:
            return True
        if not found["letters"]:
            return False
    return True

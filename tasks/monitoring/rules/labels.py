"""Labels that arrived later, paired with the logged predictions of the same rows: the query, and what it found.

A row is identified by the key of the model's data (the entity, with `data.time` also the time), or by the request's id
where the label's row has one. What identifies no row, or more than one, is counted and never paired.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from runtime.values import WHOLE_FLOAT_PATTERN
from tasks.monitoring.rules.requests import (
    REQUEST_COLUMN,
    REQUEST_ROW_COLUMN,
    REQUESTED_AT_COLUMN,
    logged_prediction_columns,
)
from tasks.shared.rules import sql
from tasks.shared.rules.model.data import DataSpec
from tasks.shared.rules.model.spec import ModelSpec

TRUTH_COLUMN = "_truth"
_STATE_COLUMN, _ROWS_COLUMN = "_state", "_rows"
_KEYS = ("entity_key", "row_time")

PairState = Literal["logged", "paired", "ambiguous", "without entity", "without time"]
"""What a number of logged predictions counts: all of them; those with their label; those that several labels may be
about; those that nothing identifies."""


@dataclass(frozen=True)
class LabelPairs:
    """Logged predictions with their labels (a row each), and numbers of logged predictions."""

    rows: pa.Table
    counts: Mapping[PairState, int]

    @property
    def unidentified(self) -> int:
        """The number of predictions of which nobody can say which row they are about."""
        return sum(self.counts.get(state, 0) for state in ("ambiguous", "without entity", "without time"))

    @property
    def identified(self) -> int:
        """The number of the other predictions, with and without a label."""
        return self.counts.get("logged", 0) - self.unidentified


def read_label_pairs(spec: ModelSpec, result: pa.Table) -> LabelPairs:
    """Return the pairs and counts from the result of `label_pairs_sql`."""
    counts: dict[PairState, int] = {}
    for state in get_args(PairState):
        if found := pc.sum(result.filter(pc.equal(result[_STATE_COLUMN], state))[_ROWS_COLUMN]).as_py():
            counts[state] = int(found)
    pairs = result.filter(pc.equal(result[_STATE_COLUMN], "paired"))
    return LabelPairs(pairs.select([*logged_prediction_columns(spec), TRUTH_COLUMN]), counts)


def label_pairs_sql(spec: ModelSpec, requests: str, logged: Collection[str], labelled: Collection[str]) -> str:
    """Return the query of logged predictions with the labels of their rows, and of the counts of the others.

    A label and a prediction with the same request id are a pair when each fits no other. All others are paired by the
    row's key; of several predictions with one key the newest counts. Where entities may have several rows (`data.time`)
    a prediction without a time is paired by its entity alone when no entity of the data set has several rows, and the
    entity has one prediction.

    Args:
        spec: the model.
        requests: the requests as a table in SQL. The query also reads the tables `labels` (the present rows of the
            main table) and `seen` (the rows of the version's tier).
        logged: the columns of the log, which lacks the entity or the time when they were never logged.
        labelled: the columns of `labels`, which lacks `data.request_id` in a data set from before it was declared.
    """
    predictions = _prediction_names(spec)
    pair = f"{predictions}, truth AS {TRUTH_COLUMN}, 'paired' AS {_STATE_COLUMN}, CAST(1 AS BIGINT) AS {_ROWS_COLUMN}"
    nothing = ", ".join(["NULL"] * (1 + len(logged_prediction_columns(spec))))
    counts = sql.select_sql(f"{nothing}, state, count(*)", "unpaired", "GROUP BY state")
    logged_count = sql.select_sql(f"{nothing}, 'logged', count(*)", "asked")
    parts = _query_parts(spec, requests, logged, labelled)
    within = "WITH " + ", ".join(f"{name} AS ({query})" for name, query in parts)
    pairs = sql.select_sql(pair, "paired")
    return f"{within} {pairs} UNION ALL {counts} UNION ALL {logged_count}"


def _query_parts(
    spec: ModelSpec, requests: str, logged: Collection[str], labelled: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Yield the named parts of the query; the last two are `paired` and `unpaired`, with a state."""
    data, predictions = spec.data, _prediction_names(spec)
    keys = _KEYS[: len(data.unique)]
    key = ", ".join(keys)
    own = f"{REQUEST_COLUMN} AS request_id, {REQUEST_ROW_COLUMN} AS request_row, {REQUESTED_AT_COLUMN} AS said_at"
    by_id = data.request_id is not None and data.request_id in labelled
    label = f"{sql.quoted_name(data.target)} AS truth"
    label += f", {sql.key_text_sql(data.request_id)} AS label_id" if by_id and data.request_id else ""
    yield "asked", sql.select_sql(f"{_key_sql(data, logged)}, {own}, {predictions}", requests)
    yield "known", sql.select_sql(f"{_key_sql(data, labelled)}, {label}", "labels")
    yield "trained", sql.select_sql(_key_sql(data, data.unique), "seen")
    if by_id:
        yield from _request_id_parts(keys)
    rest = "unclaimed" if by_id else "asked"
    claimed = f"ANTI JOIN claimed ON {_equal('untrained', 'claimed', keys)}" if by_id else ""
    fresh = f"WHERE truth IS NOT NULL GROUP BY {key}"
    yield "untrained", sql.select_sql("known.*", "known", f"ANTI JOIN trained ON {_equal('known', 'trained', keys)}")
    yield "unused", sql.select_sql("untrained.*", "untrained", claimed)
    yield "labelled", sql.select_sql(f"{key}, max(truth) AS truth, count(*) AS labels", "unused", fresh)
    place = f"row_number() OVER (PARTITION BY {key} ORDER BY said_at DESC, request_id DESC, request_row DESC) AS place"
    yield "by_key", sql.select_sql(f"*, {place}", rest, f"JOIN labelled USING ({key})")
    several = sql.select_sql("'ambiguous' AS state", "by_key", "WHERE labels > 1")
    nobody = sql.select_sql("'without entity' AS state", rest, "WHERE entity_key IS NULL")
    newest = sql.select_sql(f"{predictions}, truth", "by_key", "WHERE labels = 1 AND place = 1")
    paired, unpaired = [newest], [several, nobody]
    if data.time:
        yield from _entity_parts(rest, predictions)
        paired.append(sql.select_sql(f"{predictions}, truth", "by_entity JOIN labelled USING (entity_key)", _ALONE))
        unpaired.append(sql.select_sql("'without time' AS state", "by_entity", f"WHERE NOT ({_IS_ALONE})"))
    if by_id:
        trained = f"ANTI JOIN trained ON {' AND '.join(f'matched.label_{name} = trained.{name}' for name in keys)}"
        paired.append(sql.select_sql(f"{predictions}, truth", "matched", f"{trained} WHERE truth IS NOT NULL"))
    yield "paired", " UNION ALL ".join(paired)
    yield "unpaired", " UNION ALL ".join(unpaired)


_IS_ALONE = "asked_rows = 1 AND (SELECT max(label_rows) FROM entities) = 1"
_ALONE = f"WHERE labels = 1 AND {_IS_ALONE}"
"""An entity alone identifies a row: it has one prediction, and no entity has several labels."""


def _entity_parts(rest: str, predictions: str) -> Iterator[tuple[str, str]]:
    """Yield the parts that count the predictions and labels of entities, for predictions without a time."""
    timeless = "WHERE entity_key IS NOT NULL AND row_time IS NULL"
    yield "timeless", sql.select_sql(f"entity_key, {predictions}", rest, timeless)
    same = f"SEMI JOIN timeless ON {_equal('asked', 'timeless', ['entity_key'])} GROUP BY entity_key"
    yield "counted", sql.select_sql("entity_key, count(*) AS asked_rows", "asked", same)
    yield "entities", sql.select_sql("entity_key, count(*) AS label_rows", "known", "GROUP BY entity_key")
    yield "by_entity", sql.select_sql("*", "timeless", "JOIN counted USING (entity_key)")


def _request_id_parts(keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the parts that pair by request id, and the predictions that are left.

    The key that a prediction has must be the label's, too: a request may have several rows.
    """
    agree = " AND ".join(f"(asked.{name} IS NULL OR asked.{name} = known.{name})" for name in keys)
    label_key = ", ".join(f"known.{name}" for name in keys)
    labels = "count(*) OVER (PARTITION BY asked.request_id, asked.request_row) AS labels"
    fitting = f"count(*) OVER (PARTITION BY known.label_id, {label_key}) AS predictions"
    named = ", ".join(f"known.{name} AS label_{name}" for name in keys)
    on = f"JOIN known ON asked.request_id = known.label_id AND {agree}"
    yield "matches", sql.select_sql(f"asked.*, {named}, truth, {labels}, {fitting}", "asked", on)
    yield "matched", sql.select_sql("*", "matches", "WHERE labels = 1 AND predictions = 1")
    own = ", ".join(f"label_{name} AS {name}" for name in keys)
    yield "claimed", sql.select_sql(own, "matched")
    columns = ("request_id", "request_row", "said_at", *keys)
    same = " AND ".join(f"asked.{name} IS NOT DISTINCT FROM matched.{name}" for name in columns)
    yield "unclaimed", sql.select_sql("asked.*", "asked", f"ANTI JOIN matched ON {same}")


def _equal(left: str, right: str, columns: Iterable[str]) -> str:
    return " AND ".join(f"{left}.{name} = {right}.{name}" for name in columns)


def _key_sql(data: DataSpec, columns: Collection[str]) -> str:
    """Return the row's key as SQL: `entity_key`, with `data.time` also `row_time`; null where it is no column."""
    entity = _canonical_sql(sql.key_text_sql(data.entity)) if data.entity in columns else "CAST(NULL AS VARCHAR)"
    time = sql.quoted_name(data.time) if data.time and data.time in columns else "NULL"
    return f"{entity} AS entity_key" + (f", CAST({time} AS TIMESTAMPTZ) AS row_time" if data.time else "")


def _canonical_sql(key: str) -> str:
    """Return the canonical form of a key: an earlier release stored 1000.0 in snapshots, and the log has 1000."""
    is_whole_float = f"contains({key}, '.') AND regexp_full_match({key}, {sql.text_literal(WHOLE_FLOAT_PATTERN)})"
    return f"CASE WHEN {is_whole_float} THEN split_part({key}, '.', 1) ELSE {key} END"


def _prediction_names(spec: ModelSpec) -> str:
    return sql.quoted_names(logged_prediction_columns(spec))

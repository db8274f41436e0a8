"""Published rows: the joined rows of a model as a data set of the lake that other models may use.

A row is published once, as it was first computed, and never changes: a row whose entity (and time) is published
already is left out. The meaning of the columns cannot change under one name: other rules need another name.
"""

import json
from collections.abc import Mapping

from runtime.digests import text_digest
from tasks.shared.rules import sql
from tasks.shared.rules.model.data import DataSpec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.buckets import BUCKET_COLUMN
from tasks.shared.rules.rows.joins import select_where

RULES_DIGEST_NOTE = "rules"
"""The note of a published snapshot that holds the digest of the rules that made it."""

FEATURE_RULES_VERSION = 1
"""Raise this number when the same `model.yaml` gives other rows, for example after a change of the joins."""

MODEL_NOTE = "model"
"""The note of a published snapshot that names the model that published it."""


def feature_rules_digest(data: DataSpec) -> str:
    """Return the SHA-256 of the rules behind the columns: the tables, keys, times and columns they come from.

    The digest is over the text of `model.yaml`, not over the SQL made from it, which differs between versions of
    Ratchet. `FEATURE_RULES_VERSION` separates versions that read the same text differently.
    """
    meaning = {"__all__": {"dataset", "keys", "time", "columns"}}  # not how the files of a table are written
    declared = data.model_dump(mode="json", include={"dataset": True, "entity": True, "time": True, "tables": meaning})
    rules = {"rules": FEATURE_RULES_VERSION, **declared, "columns": sorted(data.row_columns)}
    return text_digest(
        json.dumps(rules)
    )  # tables and columns in order: of rows with equal keys the one with the greatest columns is taken


def refuse_other_publisher(dataset: str, notes: Mapping[str, str], model: str, rules: str) -> None:
    """Refuse to add rows to a data set that was published by another model or by other rules.

    `notes` are those of its newest snapshot; `rules` is the digest of the rules of the model that publishes now.
    """
    where, remedy = f"data set {dataset}", "Choose a new name for data.publish, such as the old one with -2."
    if notes.get(MODEL_NOTE) != model:
        published_by = notes.get(MODEL_NOTE, "something that is no model")
        raise Refusal(f"the rows there were published by {published_by}", where=where, value=model, remedy=remedy)
    if notes.get(RULES_DIGEST_NOTE) != rules:
        raise Refusal("the rows there were published by other rules", where=where, value=model, remedy=remedy)


def unpublished_rows_sql(data: DataSpec, *, published: bool) -> str:
    """Return the SELECT of the rows that are not published yet, with their buckets.

    It reads the table "rows", the joined rows, and with `published` the table "published", the rows of the data set.
    """
    chosen = [*(f"rows.{sql.quoted_name(column)} AS {sql.quoted_name(column)}" for column in data.row_columns)]
    bucket = f"bucket_of({sql.key_text_sql(data.entity, 'rows')}, 1)"
    key = [data.entity, *([data.time] if data.time else [])]
    equal = " AND ".join(f"published.{sql.quoted_name(column)} = rows.{sql.quoted_name(column)}" for column in key)
    unpublished = f"NOT EXISTS (SELECT 1 FROM published WHERE {equal})" if published else ""  # noqa: S608
    order = ", ".join([BUCKET_COLUMN, *(f"rows.{sql.quoted_name(column)}" for column in key)])
    return f"{select_where([*chosen, f'{bucket} AS {BUCKET_COLUMN}'], 'rows', unpublished)} ORDER BY {order}"

"""Rows that a model reads, kept as a data set of the lake: what another model may name as its own.

A row is published once, as it was first computed, and never changed: rows of which the entity (and time) are
there already are left out. What the columns mean cannot change under one name: other rules need another name.
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
"""To be raised when the same `model.yaml` comes to give other rows (a join that decides differently, say)."""

MODEL_NOTE = "model"
"""The note of a published snapshot that names the model that published it."""


def feature_rules_digest(data: DataSpec) -> str:
    """Return the SHA-256 of what the columns of the rows mean: the tables, keys, times and columns they come from.

    Of what `model.yaml` says of them, and not of the SQL it becomes: another version of Ratchet writes that
    differently. `RULES` tells versions apart between which the same words came to mean something else.
    """
    told = data.model_dump(mode="json", include={"dataset", "entity", "time", "tables"})
    rules = {"rules": FEATURE_RULES_VERSION, **told, "columns": sorted(data.row_columns)}
    return text_digest(json.dumps(rules))  # in order: of equal rows the first column decides


def refuse_other_publisher(dataset: str, notes: Mapping[str, str], model: str, rules: str) -> None:
    """Refuse to add rows to a data set that another model, or other rules, made.

    Args:
        dataset: the name under which the rows are published.
        notes: those of its newest snapshot.
        model: who publishes now.
        rules: the digest of the rules by which.

    Raises:
        Refusal: the data set is of another making.
    """
    where, remedy = f"data set {dataset}", "Choose a new name for data.publish, such as the old one with -2."
    if notes.get(MODEL_NOTE) != model:
        published_by = notes.get(MODEL_NOTE, "something else than a model")
        raise Refusal(f"the rows there were published by {published_by}", where=where, value=model, remedy=remedy)
    if notes.get(RULES_DIGEST_NOTE) != rules:
        raise Refusal("the rows there were made by other rules", where=where, value=model, remedy=remedy)


def unpublished_rows_sql(data: DataSpec, *, published: bool) -> str:
    """Return the SELECT of the rows, with their buckets, that are not published yet.

    It reads "rows", the rows as the model reads them, and, when `published`, "published", those that are there.
    """
    chosen = [*(f"rows.{sql.quoted_name(column)} AS {sql.quoted_name(column)}" for column in data.row_columns)]
    bucket = f"bucket_of({sql.key_text_sql(data.entity, 'rows')}, 1)"
    key = [data.entity, *([data.time] if data.time else [])]
    equal = " AND ".join(f"published.{sql.quoted_name(column)} = rows.{sql.quoted_name(column)}" for column in key)
    there = f"NOT EXISTS (SELECT 1 FROM published WHERE {equal})" if published else ""  # noqa: S608
    order = ", ".join([BUCKET_COLUMN, *(f"rows.{sql.quoted_name(column)}" for column in key)])
    return f"{select_where([*chosen, f'{bucket} AS {BUCKET_COLUMN}'], 'rows', there)} ORDER BY {order}"

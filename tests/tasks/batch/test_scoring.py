"""Predictions: one row per entity, in the form of the task type; others are refused."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from blocks.sources import UnreadableRow
from blocks.tracking.fake import FakeTracking
from tasks.batch.input import refuse_unreadable_rows
from tasks.batch.predictor import Predictor, predictions_table
from tasks.shared.rules.model.data import DataSpec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.buckets import tier_buckets

KEYS = pa.array(["h1", "h2", "h3"])
AT = pa.array([datetime(2026, 11, 21, hour, tzinfo=UTC) for hour in range(3)], pa.timestamp("us", "UTC"))
ROWS = pa.table({
    "house": KEYS,
    "asked_at": AT,
    "_source_file": pa.array([0, 0, 1], pa.int32()),
    "_source_row": pa.array([2, 3, 2], pa.int64()),
    "_bucket": pa.array(tier_buckets(KEYS), pa.int32()),
})  # fmt: skip


def data(*classes: str) -> DataSpec:
    return DataSpec(dataset="houses", entity="house", target="sold", classes=classes, features={"rooms": "number"})


BINARY = np.array([[0.9, 0.1], [0.4, 0.6], [0.0, 1.0]])
SHAPES = {
    "binary": (data("No", "Yes"), BINARY, ["probability_No", "probability_Yes"]),
    "multiclass": (data("a", "b", "c"), np.full((3, 3), 1 / 3), ["probability_a", "probability_b", "probability_c"]),
    "regression": (data(), np.array([1.5, 2.5, 3.5]), ["prediction"]),
}


@pytest.mark.parametrize(("spec", "said", "names"), SHAPES.values(), ids=SHAPES)
def test_a_row_has_entity_position_predictions_version_and_bucket(
    spec: DataSpec, said: np.ndarray, names: list[str]
) -> None:
    table = predictions_table(spec, ROWS, said, "7")
    assert table.column_names == ["house", "_source_file", "_source_row", *names, "model_version", "_bucket"]
    assert table["_source_row"].to_pylist() == [2, 3, 2]
    assert table["house"].to_pylist() == ["h1", "h2", "h3"]
    assert table["model_version"].to_pylist() == ["7", "7", "7"]
    assert np.array_equal(np.column_stack([table[name].to_numpy() for name in names]), said.reshape(3, -1))


def test_a_model_with_a_time_keeps_it_and_rows_without_one_have_none() -> None:
    timed = data("No", "Yes").model_copy(update={"time": "asked_at"})
    table = predictions_table(timed, ROWS, BINARY, "7")
    assert table.column_names[:2] == ["house", "asked_at"] and table["asked_at"].combine_chunks().equals(AT)
    assert predictions_table(timed, ROWS.drop_columns(["asked_at"]), BINARY, "7")["asked_at"].null_count == 3


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"entity": "_source_row"}, id="the key"),
        pytest.param({"entity": "model_version"}, id="the key is called like the version"),
        pytest.param({"features": {"_source_file": "number"}}, id="a feature"),
    ],
)
def test_a_column_that_is_called_like_one_of_the_predictions_is_refused(spec: dict[str, Any]) -> None:
    clashing = data("No", "Yes").model_copy(update=spec)
    with pytest.raises(Refusal, match=r"a column of this name already.*Rename the column"):
        _ = Predictor(FakeTracking(root=Path()), Path(), "", clashing, "7").schema


def test_one_row_alone_is_scored() -> None:
    table = predictions_table(data("No", "Yes"), ROWS[:1], BINARY[:1], "7")
    assert table.num_rows == 1
    assert table["probability_Yes"].to_pylist() == [0.1]


WRONG = {
    "not a number": (data("No", "Yes"), np.where(BINARY == 0.6, np.nan, BINARY)),
    "infinite value": (data(), np.array([1.0, np.inf, 3.0])),
    "a class too many": (data("No", "Yes"), np.full((3, 3), 1 / 3)),
    "two values a row": (data(), np.ones((3, 2))),
    "no probabilities": (data("No", "Yes"), BINARY * 7),
    "a class too few": (data("No", "Yes"), np.array([0.1, 0.6, 1.0])),
    "a row too few": (data("No", "Yes"), BINARY[:2]),
}


@pytest.mark.parametrize(("spec", "said"), WRONG.values(), ids=WRONG)
def test_predictions_that_are_none_are_refused_and_not_kept(spec: DataSpec, said: np.ndarray) -> None:
    with pytest.raises(Refusal):
        predictions_table(spec, ROWS, said, "7")


def test_rows_that_cannot_be_read_are_refused_with_place_and_reason() -> None:
    with pytest.raises(Refusal) as refused:
        refuse_unreadable_rows(2, UnreadableRow("line 12", "3 fields, expected 4", "h9,3,Elm"), "houses.csv")
    told = str(refused.value)
    assert all(part in told for part in ("2 rows", "houses.csv, line 12", "3 fields, expected 4", "h9,3,Elm"))
    assert "nothing was predicted" in told

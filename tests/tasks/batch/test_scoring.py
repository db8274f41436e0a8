"""Predictions: one row per entity, in the form of the task type; others are refused."""

import numpy as np
import pyarrow as pa
import pytest

from blocks.sources import UnreadableRow
from tasks.batch.input import refuse_unreadable_rows
from tasks.batch.predictor import predictions_table
from tasks.shared.rules.model.data import DataSpec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.buckets import tier_buckets

KEYS = pa.array(["h1", "h2", "h3"])
BUCKETS = pa.array(tier_buckets(KEYS), pa.int32())


def data(*classes: str) -> DataSpec:
    return DataSpec(dataset="houses", entity="house", target="sold", classes=classes, features={"rooms": "number"})


BINARY = np.array([[0.9, 0.1], [0.4, 0.6], [0.0, 1.0]])
SHAPES = {
    "binary": (data("No", "Yes"), BINARY, ["probability_No", "probability_Yes"]),
    "multiclass": (data("a", "b", "c"), np.full((3, 3), 1 / 3), ["probability_a", "probability_b", "probability_c"]),
    "regression": (data(), np.array([1.5, 2.5, 3.5]), ["prediction"]),
}


@pytest.mark.parametrize(("spec", "said", "names"), SHAPES.values(), ids=SHAPES)
def test_a_row_has_entity_predictions_version_and_bucket(spec: DataSpec, said: np.ndarray, names: list[str]) -> None:
    table = predictions_table(spec, KEYS, BUCKETS, said, "7")
    assert table.column_names == ["house", *names, "model_version", "_bucket"]
    assert table["house"].to_pylist() == ["h1", "h2", "h3"]
    assert table["model_version"].to_pylist() == ["7", "7", "7"]
    assert np.array_equal(np.column_stack([table[name].to_numpy() for name in names]), said.reshape(3, -1))


def test_one_row_alone_is_scored() -> None:
    table = predictions_table(data("No", "Yes"), KEYS[:1], BUCKETS[:1], BINARY[:1], "7")
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
        predictions_table(spec, KEYS, BUCKETS, said, "7")


def test_rows_that_cannot_be_read_are_refused_with_place_and_reason() -> None:
    with pytest.raises(Refusal) as refused:
        refuse_unreadable_rows(2, UnreadableRow("line 12", "3 fields, expected 4", "h9,3,Elm"), "houses.csv")
    told = str(refused.value)
    assert all(part in told for part in ("2 rows", "houses.csv, line 12", "3 fields, expected 4", "h9,3,Elm"))
    assert "nothing was predicted" in told

"""The payload of inference requests: rows are sent to the last digit, and a response must be numbers for each row."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.batch.rules import payload
from tasks.batch.rules.payload import parse_predictions, request_body, split_into_requests
from tasks.shared.rules.refusal import Refusal

TABLE = pa.table(
    {"key": ["a", "b"], "rooms": [0.1 + 0.2, float("nan")], "street": ["Zoë", None], "flag": [True, False]}
)


def test_values_are_sent_as_they_are_and_the_key_is_not() -> None:
    sent = json.loads(request_body(TABLE, ["rooms", "street", "flag"]))["dataframe_split"]
    assert sent == {"columns": ["rooms", "street", "flag"], "data": [[0.1 + 0.2, "Zoë", 1], [None, None, 0]]}


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_no_digit_is_lost(values: list[float]) -> None:
    sent = json.loads(request_body(pa.table({"a": values}), ["a"]))["dataframe_split"]["data"]
    assert [row[0] for row in sent] == values


@given(st.integers(1, 40), st.integers(60, 400))
def test_however_it_is_cut_every_row_is_asked_for_once_in_order(rows: int, limit: int) -> None:
    table = pa.table({"key": [str(number) for number in range(rows)], "a": list(range(rows))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(payload, "MAX_REQUEST_BYTES", limit)
        patch.setattr(payload, "MAX_REQUEST_ROWS", 7)
        made = split_into_requests(table, ["a"])
    asked = [row[0] for body, _ in made for row in json.loads(body)["dataframe_split"]["data"]]
    assert asked == list(range(rows))
    assert [key for _, part in made for key in part["key"].to_pylist()] == table["key"].to_pylist()
    assert all(len(body) <= limit for body, _ in made)


def test_what_cannot_be_sent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refusal, match="cannot be sent"):
        request_body(pa.table({"a": [float("inf")]}), ["a"])
    monkeypatch.setattr(payload, "MAX_REQUEST_BYTES", 50)
    with pytest.raises(Refusal, match="a single row exceeds"):
        split_into_requests(pa.table({"a": ["x" * 100]}), ["a"])


ANSWERS = {
    "a number a row": (b'{"predictions": [1.5, 2]}', [1.5, 2.0]),
    "probabilities": (b'{"predictions": [[0.25, 0.75], [1, 0]]}', [[0.25, 0.75], [1.0, 0.0]]),
    "named columns": (b'{"predictions": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}', [[1.0, 2.0], [3.0, 4.0]]),
}


@pytest.mark.parametrize(("body", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_answers_are_read(body: bytes, expected: list[float]) -> None:
    assert np.array_equal(parse_predictions(body, 2), np.array(expected))


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"predictions": [1]}', b'{"predictions": ["x", 1]}', b'{"predictions": [[1], [1, 2]]}',
     b'{"predictions": 5}', b'{"error": "no"}', b"\xff"],
    ids=["nothing", "a list", "no member", "too few", "text", "ragged", "one number", "an error", "no text"],
)  # fmt: skip
def test_an_answer_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal):
        parse_predictions(body, 2)

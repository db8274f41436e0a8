"""Logged inference requests: they become rows of fixed types; incomplete requests are refused."""

from typing import Any

import pyarrow as pa
import pytest

from tasks.monitoring.rules.requests import inference_log_table, logged_prediction_columns, monitored_prediction_columns
from tasks.shared.rules.model.spec import parse_spec
from tests.fixtures.spec_cases import BINARY, GOOD

SPEC = parse_spec(BINARY, "model.yaml")


def request(**fields: Any) -> dict[str, Any]:
    columns = {"house_id": ["h1", 2], "rooms": ["3", None], "street": ["Elm", 5], "garden": [True, "0"]}
    answer = {"predictions": [[0.25, 0.75], [1.0, 0.0]]}
    return {
        "at": "2026-11-25T12:00:00+01:00",
        "id": "r",
        "version": "1",
        "rows": 2,
        "columns": columns,
        "answer": answer,
        **fields,
    }


def test_a_request_of_two_rows_is_two_rows_of_declared_types() -> None:
    table = inference_log_table(SPEC, [request(), request(id="s", version="2")])
    assert table is not None
    assert table.schema.field("_requested_at").type == pa.timestamp("us", "UTC")
    rows = table.to_pylist()
    assert [(row["_request_id"], row["_row"], row["_model_version"]) for row in rows] == [
        ("r", 0, "1"), ("r", 1, "1"), ("s", 0, "2"), ("s", 1, "2"),
    ]  # fmt: skip
    first = {name: rows[0][name] for name in ("house_id", "rooms", "street", "garden", "_prediction_Yes")}
    assert first == {"house_id": "h1", "rooms": 3.0, "street": "Elm", "garden": 1.0, "_prediction_Yes": 0.75}
    assert (rows[1]["house_id"], rows[1]["rooms"], rows[1]["street"], rows[1]["garden"]) == ("2", None, "5", 0.0)
    assert rows[0]["_requested_at"].isoformat() == "2026-11-25T11:00:00+00:00"


def test_categories_of_versions_of_an_earlier_release_stay_as_they_were_sent() -> None:
    sent = {"house_id": ["1000.0", "h2"], "street": ["true", None], "rooms": ["3", 2], "garden": ["true", 0]}
    table = inference_log_table(SPEC, [request(columns=sent), request(columns=sent, version="2")], {"1"})
    assert table is not None
    assert table["street"].to_pylist() == ["true", None, "True", None]
    assert table["house_id"].to_pylist() == ["1000", "h2"] * 2
    assert table["garden"].to_pylist() == [1.0, 0.0] * 2 and table["rooms"].to_pylist() == [3.0, 2.0] * 2


def test_a_column_that_was_not_logged_is_null_and_a_value_of_another_kind_too() -> None:
    table = inference_log_table(SPEC, [request(columns={"rooms": ["many", 1]})])
    assert table is not None
    assert table["rooms"].to_pylist() == [None, 1.0]
    assert table["street"].to_pylist() == [None, None]
    assert table["house_id"].null_count == 2


def test_columns_are_the_same_whatever_was_logged() -> None:
    few, all_of_them = (inference_log_table(SPEC, [request(**each)]) for each in ({"columns": {}}, {}))
    assert few is not None and all_of_them is not None and few.schema == all_of_them.schema


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"answer": {"predictions": [[0.5, 0.5]]}}, "not have one prediction"),
        ({"answer": {"predictions": {"a": 1}}}, "not have one prediction"),
        ({"columns": {"rooms": [1]}}, "1 values of rooms in 2 rows"),
        ({"at": "yesterday"}, "isoformat"),
    ],
)
def test_a_request_that_does_not_hold_what_it_has_to_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        inference_log_table(SPEC, [request(**fields)])


def test_an_answer_of_another_shape_has_no_prediction() -> None:
    table = inference_log_table(SPEC, [request(answer={"predictions": [0.5, [1, 2, 3]]})])
    assert table is not None and table["_prediction_Yes"].null_count == 2


def test_a_regression_has_one_prediction_and_two_classes_one_that_says_something() -> None:
    assert logged_prediction_columns(SPEC) == ("_prediction_No", "_prediction_Yes")
    assert monitored_prediction_columns(SPEC) == ("_prediction_Yes",)
    price = parse_spec(GOOD, "model.yaml")
    assert logged_prediction_columns(price) == monitored_prediction_columns(price) == ("_prediction",)
    table = inference_log_table(price, [request(answer={"predictions": [1.5, [2.5]]})])
    assert table is not None and table["_prediction"].to_pylist() == [1.5, 2.5]


def test_no_request_is_no_table() -> None:
    assert inference_log_table(SPEC, []) is None


def test_entity_and_time_are_stored_in_their_canonical_form_and_others_identify_nothing() -> None:
    timed = parse_spec(BINARY.replace("  target:", "  time: sold_at\n  target:"), "model.yaml")
    sent = {
        "house_id": ["h1", 2, 3.0, " ", True],
        "sold_at": ["2026-11-25T12:00:00+01:00", "2026-11-25T11:00:00Z", "2026-11-25T11:00:00", 1764068400, None],
    }
    answer = {"predictions": [[0.5, 0.5]] * 5}
    table = inference_log_table(timed, [request(columns=sent, rows=5, answer=answer)])
    assert table is not None and table.schema.field("sold_at").type == pa.timestamp("us", "UTC")
    assert table["house_id"].to_pylist() == ["h1", "2", "3", None, None]
    assert [at and at.isoformat() for at in table["sold_at"].to_pylist()] == ["2026-11-25T11:00:00+00:00"] * 2 + [
        None
    ] * 3
    without = inference_log_table(timed, [request(columns={}, rows=5, answer=answer)])
    assert without is not None and without.schema == table.schema

"""The canonical form of values in requests: by the kinds in the model's signature, or else by the types of the model."""

import json
from pathlib import Path
from typing import Any

import pytest

from runtime.admission import admit_model
from runtime.columns import BadInput, Column
from runtime.payload import parse_request
from runtime.signatures import RowKey, sign_folder
from tests.fixtures.signing_keys import MODELS

KINDS = {"age": "number", "vip": "flag", "plan": "category"}
COLUMNS = [Column("age", "double", False, "number"), Column("vip", "double", False, "flag"),
           Column("plan", "string", False, "category")]  # fmt: skip
EARLIER = [Column("age", "double", False), Column("vip", "long"), Column("plan", "string", False)]


def read(row: dict[str, Any], columns: list[Column] = COLUMNS, entity: str = "id") -> list[Any]:
    payload = parse_request(
        json.dumps({"dataframe_records": [row]}).encode(), "application/json", columns, RowKey(entity)
    )
    return [payload.frame[column.name].tolist()[0] for column in columns]


@pytest.mark.parametrize("sent", [{"age": "5", "vip": True, "plan": True}, {"age": 5, "vip": "true", "plan": "true"},
                                  {"age": " 5.0 ", "vip": 1.0, "plan": "TRUE"}])  # fmt: skip
def test_the_same_value_is_the_same_input_however_it_is_written(sent: dict[str, Any]) -> None:
    assert read(sent) == [5.0, 1.0, "True"]
    text = ",".join(map(str, sent.values()))
    frame = parse_request(f"age,vip,plan\n{text}\n".encode(), "text/csv", COLUMNS).frame
    assert frame.iloc[0].tolist() == [5.0, 1.0, "True"]


@pytest.mark.parametrize(
    ("name", "value"), [("age", True), ("age", "1_000"), ("vip", 2), ("plan", ["a"]), ("plan", "a\0")]
)
def test_a_value_without_a_form_is_refused_by_its_column(name: str, value: Any) -> None:
    with pytest.raises(BadInput, match=f"column '{name}', row 0"):
        read({"age": 1, "vip": 0, "plan": "a", name: value})


def test_a_model_of_an_earlier_release_gets_its_texts_as_they_are_sent() -> None:
    assert read({"age": "5", "vip": True, "plan": "true"}, EARLIER) == [5.0, 1, "true"]
    assert read({"age": 5, "vip": 0, "plan": "2.0"}, EARLIER) == [5.0, 0, "2.0"]
    with pytest.raises(BadInput, match="column 'plan'"):
        read({"age": 5, "vip": 0, "plan": True}, EARLIER)


@pytest.mark.parametrize("key", [1000, 1000.0, "1000", "1000.0"])
def test_the_entity_is_logged_as_its_canonical_key(key: object) -> None:
    body = json.dumps({"dataframe_records": [{"age": 1, "vip": 0, "plan": "a", "id": key}]}).encode()
    assert parse_request(body, "application/json", COLUMNS, RowKey("id")).sent_values["id"] == ("1000",)


@pytest.mark.parametrize(
    "body",
    [
        '{"dataframe_records":[{"age":1,"vip":1,"plan":"a","age":72}]}',
        '{"dataframe_records":[{"age":1,"vip":1,"plan":"a"}],"dataframe_records":[]}',
        '{"dataframe_records":[{"\\u0061ge":1,"vip":1,"plan":"a","age":72}]}',
        '{"inputs":{"age":[1],"vip":[1],"plan":["a"],"age":[72]}}',
    ],
)
def test_a_name_that_is_there_twice_is_refused_by_name(body: str) -> None:
    with pytest.raises(BadInput, match="name '(age|dataframe_records)' twice") as refused:
        parse_request(body.encode(), "application/json", COLUMNS)
    assert refused.value.status == 400


@pytest.mark.parametrize("name", [" age", "age ", "Age"])
def test_a_name_is_exact_in_json_and_csv(name: str) -> None:
    with pytest.raises(BadInput, match="does not know the column.*did you mean 'age'"):
        read({name: 1, "vip": 0, "plan": "a"})
    with pytest.raises(BadInput, match="does not know the column.*did you mean 'age'"):
        parse_request(f"{name},vip,plan\n1,0,a\n".encode(), "text/csv", COLUMNS)


def test_the_kinds_are_signed_with_the_model(tmp_path: Path) -> None:
    from tests.fixtures.malicious_models import plain

    model = plain(tmp_path / "model")
    sign_folder(model, MODELS, {"kinds": KINDS})
    assert admit_model(model, [MODELS.public_key_line]).permissions.kinds == KINDS
    sign_folder(model, MODELS, {})
    assert admit_model(model, [MODELS.public_key_line]).permissions.kinds == {}

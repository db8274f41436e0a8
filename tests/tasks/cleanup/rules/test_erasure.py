"""Where an entity's rows are looked for, and by what a row is recognised."""

import pyarrow as pa
import pytest

from tasks.cleanup.rules.erasure import ErasurePlace, erasure_places, key_forms, related_models
from tasks.shared.rules.model.spec import ModelSpec, parse_spec
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.spec_cases import BINARY


def spec(name: str = "price", **data: object) -> ModelSpec:
    base = parse_spec(BINARY, "models/price/model.yaml")
    return base.model_copy(update={"name": name, "data": base.data.model_copy(update=data)})


@pytest.mark.parametrize(
    ("key", "texts"),
    [
        ("c7", ['{"id": "c7"}', '{"text": "c7,1"}', '{"text": "1;c7"}', "c7"]),
        ("a.b*c", ['{"id": "a.b*c"}', "x a.b*c y"]),
        ('6" pipe', ['{"id": "6\\" pipe"}']),
        ("Zoë", ['{"id": "Zoë"}']),
        ("back\\slash", ['{"id": "back\\\\slash"}']),
        ("3", ['{"id": 3}', '{"text": "3;1"}', '{"text": "x 3"}']),
        ("ZoëX", ['{"text": "{\\"id\\": \\"Zo\\\\u00ebX\\"}"}']),
        ('O"Brien', ['{"text": "{\\"id\\": \\"O\\\\\\"Brien\\"}"}']),
        ("Sl/ash", ['{"text": "{\\"id\\": \\"Sl\\\\/ash\\"}"}']),
        ("3000", ['{"text": "{\\"id\\": 3e3}"}']),
    ],
)
def test_a_quarantined_row_that_names_the_key_anywhere_is_recognised(key: str, texts: list[str]) -> None:
    place = ErasurePlace("houses-quarantine", "id", is_quarantine=True)
    rows = pa.table({"key": pa.nulls(len(texts), pa.string()), "row": texts})
    assert place.selects(rows, key).all()


def test_a_number_beside_the_key_takes_no_row_of_another_entity() -> None:
    place = ErasurePlace("houses-quarantine", "id", is_quarantine=True)
    texts = ['{"text": "c1;1000.5"}', '{"text": "c1;1.1000"}', '{"id": "c1", "price": 1000}', '{"text": "c1;1000"}']
    rows = pa.table({"key": pa.nulls(4, pa.string()), "row": texts})
    assert place.selects(rows, "1000").tolist() == [False, False, False, True], "the last may be its own"


@pytest.mark.parametrize("other", ['{"id": "c70"}', '{"id": "xc7"}', '{"id": "c_7"}', "c7é", None])
def test_a_row_of_another_key_is_not(other: str | None) -> None:
    place = ErasurePlace("houses-quarantine", "id", is_quarantine=True)
    rows = pa.table({"key": pa.array(["c8"]), "row": pa.array([other], pa.string())})
    assert not place.selects(rows, "c7").any()


def test_a_key_column_is_compared_as_text_and_null_is_nobody() -> None:
    place = ErasurePlace("houses", "id")
    assert place.selects(pa.table({"id": pa.array([7, 8, None])}), "7").tolist() == [True, False, False]
    assert place.selects(pa.table({"id": pa.array(["7", "07", " 7", None])}), "7").tolist() == [
        True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "stored", "others"),
    [
        ("1000", ["1000", "1000.0", "1000.00"], ["1000.5", "11000", "1000.", "01000.0", "10000"]),
        ("1000.0", ["1000", "1000.0", "1000.00"], ["1000.5", "100"]),
        ("0", ["0", "0.0", "-0.0"], ["-1", "00"]),
        ("-3.0", ["-3", "-3.0"], ["3", "3.0"]),
        ("1E+05", ["1E+05"], ["1E05", "100000", "1EE05"]),
        ("007", ["007"], ["7", "7.0", "007.0"]),
        ("a.0", ["a.0"], ["a", "a00"]),
        (" 5 ", [" 5 "], ["5", "5.0"]),
    ],
)
def test_a_key_is_found_as_an_earlier_release_stored_it(key: str, stored: list[str], others: list[str]) -> None:
    texts = pa.table({"id": [*stored, *others, None]})
    expected = [*(True for _ in stored), *(False for _ in [*others, None])]
    assert ErasurePlace("houses", "id").selects(texts, key).tolist() == expected
    aside = pa.table({"key": [*stored, *others, None], "row": pa.nulls(len(expected), pa.string())})
    assert ErasurePlace("houses-quarantine", "id", is_quarantine=True).selects(aside, key).tolist() == expected


@pytest.mark.parametrize("key", ["123456789012", "123456789012.0"])
def test_a_key_is_found_in_a_column_of_floats(key: str) -> None:
    rows = pa.table({"id": pa.array([123456789012.0, 123456789013.0, None])})
    assert ErasurePlace("houses", "id").selects(rows, key).tolist() == [True, False, False]


@pytest.mark.parametrize("row", ['{"id": "1000.0"}', '{"id": 1000}', '{"text": "1000,Elm"}', '{"text": "3;1000.0"}'])
def test_a_quarantined_row_may_name_another_form_of_the_key(row: str) -> None:
    rows = pa.table({"key": pa.nulls(1, pa.string()), "row": [row]})
    place = ErasurePlace("houses-quarantine", "id", is_quarantine=True)
    assert place.selects(rows, "1000.0").all() and place.selects(rows, "1000").all()


def test_bytes_that_are_no_text_are_refused_as_a_key() -> None:
    with pytest.raises(Refusal, match="not the key of an entity"):
        key_forms("h\udc80")


def test_only_data_sets_that_exist_are_searched_and_each_once() -> None:
    existing = ["houses", "houses-quarantine", "houses-inference", "price--dana-predictions", "other"]
    places = erasure_places([spec(), spec("price--dana")], existing)
    assert [(each.dataset, each.columns) for each in places] == [
        ("houses", ("house_id",)),
        ("houses-inference", ("house_id",)),
        ("houses-quarantine", ("key", "row")),
        ("price--dana-predictions", ("house_id",)),
    ]


def test_models_that_share_the_data_are_found_also_over_published_rows() -> None:
    first, third = spec(publish="house-features"), spec("third", dataset="streets")
    second = spec("second", dataset="house-features")
    assert [each.name for each in related_models(first, [third, second])] == ["price", "second"]
    assert [each.name for each in related_models(third, [first, second])] == ["third"]

"""`model.yaml`: valid files are read, and each error names file, line, key, value and remedy."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.shared.rules.model.mistakes import Mistakes
from tasks.shared.rules.model.parts import SearchChoices, SearchRange
from tasks.shared.rules.model.spec import ModelSpec, parse_spec, spec_keys_markdown
from tasks.shared.rules.model.strict_record import record_keys
from tasks.shared.rules.refusal import Refusal
from tests.checkout import ROOT
from tests.fixtures.join_cases import JOINED
from tests.fixtures.spec_cases import (
    BINARY,
    BINARY_CASES,
    CASES,
    GOOD,
    JOINED_CASES,
    STRATA_CASES,
    UNREADABLE,
)


@pytest.mark.parametrize("text", [GOOD, BINARY], ids=["regression", "binary"])
def test_a_right_file_is_read_and_defaults_are_filled_in(text):
    spec = parse_spec(text, "model.yaml")
    assert (spec.holdout, spec.tiers.development, spec.tiers.full) == (0.2, 0.01, 1.0)
    assert (spec.approval.expires_days, spec.approval.four_eyes) == (7, True)
    assert spec.search["trees"] == SearchRange(low=10, high=200)
    assert spec.search["loss"] == SearchChoices(choices=("squared", "absolute"))
    assert spec.training.parameters == {"trees": 100, "rate": 0.1, "loss": "squared"}
    assert type(spec.training.parameters["trees"]) is int


def test_the_churn_model_is_read():
    path = ROOT / "models/churn/model.yaml"
    spec = parse_spec(path.read_bytes(), str(path))
    assert (spec.name, spec.data.classes, len(spec.data.features)) == ("churn", ("No", "Yes"), 19)
    assert [floor.metric for floor in spec.evaluation.floors] == ["auc", "brier", "calibration_error"]


@pytest.mark.parametrize(
    ("good", "old", "new", "line", "key", "value", "says"),
    [
        *((GOOD, *case) for case in (CASES | STRATA_CASES).values()),
        *((BINARY, *case) for case in BINARY_CASES.values()),
        *((JOINED, *case) for case in JOINED_CASES.values()),
    ],
    ids=[*CASES, *STRATA_CASES, *BINARY_CASES, *JOINED_CASES],
)
def test_a_mistake_is_told_with_file_line_key_value_and_remedy(good, old, new, line, key, value, says):
    assert old in good
    with pytest.raises(Mistakes) as refused:
        parse_spec(good.replace(old, new, 1), "models/price/model.yaml")
    mistake = next(found for found in refused.value.mistakes if found.key == key)
    assert (mistake.line, mistake.value) == (line, value if len(value) <= 60 else f"{value[:57]}...")
    assert says in str(mistake)
    assert str(refused.value).startswith("models/price/model.yaml")
    assert f"line {line}, {key}: " in str(refused.value)


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_file_is_refused_with_file_and_line(text):
    with pytest.raises(Refusal, match=r"^models/x/model.yaml, line \d+") as refused:
        parse_spec(text, "models/x/model.yaml")
    assert "Traceback" not in str(refused.value)


def test_a_model_of_several_tables_says_what_ingest_needs_of_each():
    spec = parse_spec(JOINED, "model.yaml")
    main, accounts, weather = (spec.data.ingest_schema(name) for name in ("", "accounts", "weather"))
    assert dict(main.column_kinds) == {
        "customer": "key",
        "asked_at": "time",
        "depot": "category",
        "weight": "number",
        "late": "category",
    }
    assert (main.unique, main.target, main.classes) == (("customer", "asked_at"), "late", ("No", "Yes"))
    assert (accounts.dataset, accounts.entity, accounts.target) == ("accounts", "customer_id", None)
    assert dict(accounts.column_kinds) == {
        "customer_id": "key",
        "valid_from": "time",
        "balance": "number",
        'seg"ment': "category",
    }
    assert accounts.unique == ("customer_id", "valid_from")
    assert weather.entity == "place", "a table that is read whole is laid out by its first key"
    assert spec.data.row_columns == ("customer", "asked_at", *spec.data.features, "late")


def test_a_model_of_one_table_lands_its_columns_as_before():
    landing = parse_spec(BINARY, "model.yaml").data.ingest_schema()
    assert list(landing.column_kinds.items()) == [
        ("house_id", "key"), ("rooms", "number"), ("street", "category"), ("garden", "flag"), ("price", "category"),
    ]  # fmt: skip
    assert (landing.dataset, landing.unique, landing.target) == ("houses", ("house_id",), "price")


def test_a_table_that_the_model_does_not_have_is_refused_with_the_nearest():
    with pytest.raises(Refusal, match=r"data\.tables.*'acounts'.*Did you mean `accounts`\?"):
        parse_spec(JOINED, "model.yaml").data.ingest_schema("acounts")
    with pytest.raises(Refusal, match="The model has one table"):
        parse_spec(GOOD, "model.yaml").data.ingest_schema("acounts")


def test_all_mistakes_are_told_together_in_the_order_of_lines():
    text = GOOD.replace("owner", "ownr").replace("seed: 7", 'seed: "7"').replace("low: 10,", "low: no,")
    with pytest.raises(Mistakes) as refused:
        parse_spec(text.replace("r2,", "f1,").replace("column: street", "column: x"), "m.yaml")
    told = [(mistake.line, mistake.key) for mistake in refused.value.mistakes]
    assert told == [
        (1, "owner"), (3, "ownr"), (14, "training.seed"), (22, "search.trees.low"),
        (28, "evaluation.floors[0].metric"), (30, "evaluation.slices[0].column"),
    ]  # fmt: skip
    assert str(refused.value).startswith("m.yaml: 6 mistakes\n  line 1, owner: is missing. Add it:")


def test_a_mistake_is_told_once():
    with pytest.raises(Mistakes) as refused:
        parse_spec(GOOD.replace("trees: 100", "trees: ~"), "m.yaml")
    assert len(refused.value.mistakes) == 1


def test_a_record_cannot_be_changed():
    spec = parse_spec(GOOD, "m.yaml")
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"


def test_every_key_of_the_table_is_described_and_the_document_is_in_step():
    document = (ROOT / "docs/model-yaml.md").read_text()
    assert all(key.description for key in record_keys(ModelSpec))
    table = document.partition("<!-- keys -->\n")[2].partition("<!-- end of keys -->")[0]
    assert table.strip() == spec_keys_markdown().strip(), (
        "paste the output of tasks.shared.rules.model.spec.spec_keys_markdown()"
    )


def test_the_examples_of_the_document_are_read():
    document = (ROOT / "docs/model-yaml.md").read_text()
    examples = [part.partition("```")[0] for part in document.split("```yaml\n")[1:]]
    assert examples
    for example in examples:
        assert isinstance(parse_spec(example, "docs/model-yaml.md"), ModelSpec)


def test_the_example_of_joined_tables_is_read():
    example = (ROOT / "docs/joins.md").read_text().split("```yaml\n")[1].partition("```")[0]
    before, rest = JOINED.split("data:\n")
    spec = parse_spec(before + example + rest[rest.index("training:") :], "docs/joins.md")
    assert list(spec.data.tables) == ["weather", "planes"]


def test_the_table_names_every_key_of_the_churn_model():
    known = {key.key for key in record_keys(ModelSpec)}
    values = yaml.safe_load((ROOT / "models/churn/model.yaml").read_text())
    sections = {name for name in values if not isinstance(values[name], dict)}
    sections |= {f"{name}.{key}" for name in ("data", "tiers", "training", "evaluation") for key in values[name]}
    assert sections <= known
    assert {"evaluation.floors[].metric", "search.<name>.low", "evaluation.slices[].column"} <= known


@settings(max_examples=60)
@given(st.sampled_from(GOOD.splitlines()), st.text(max_size=20))
def test_a_line_replaced_by_anything_is_read_or_refused_by_name(line, garbage):
    try:
        parse_spec(GOOD.replace(line, garbage, 1), "m.yaml")
    except Mistakes as refused:
        assert str(refused).startswith("m.yaml")


@settings(max_examples=60)
@given(st.data())
def test_what_is_read_can_be_written_and_read_again(data):
    low = data.draw(st.floats(1e-4, 1), "development")
    spec = parse_spec(GOOD + f"tiers: {{development: {low:.6f}, staging: 1.0}}\n", "m.yaml")
    dumped = yaml.safe_dump(spec.model_dump(mode="json", exclude_none=True))
    assert parse_spec(dumped, "again.yaml") == spec

"""Strict YAML: ambiguous text is refused, with its line."""

import pickle

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tasks.shared.rules.model.mistakes import Mistake, Mistakes, key_name
from tasks.shared.rules.model.strict_yaml import MAX_DEPTH, MAX_NODES, read_yaml
from tasks.shared.rules.refusal import Refusal

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"

UNREADABLE = {
    "empty file": ("", 1, "empty"),
    "only a comment": ("# nothing\n", 1, "empty"),
    "bare text": ("churn", 1, "not bare text"),
    "list": ("- a\n- b\n", 1, "not a list"),
    "tab indent": ("a:\n\tb: 1\n", 2, "Indent with spaces"),
    "tab inside": ("a: 1\nb: x\ty\n", 2, "tab"),
    "python tag": ("a: 1\nb: !!python/object/apply:os.system [ls]\n", 2, "python/object/apply:os.system"),
    "python tag on the root": ("!!python/name:os.system {}\n", 1, "tags are not read"),
    "own tag": ("a: !mine x\n", 1, "tags are not read"),
    "anchor": ("a: &x 1\n", 1, "anchors"),
    "alias bomb": (BOMB, 1, "Write the value out"),
    "merge of an alias": ("b:\n  <<: *a\n", 2, "aliases"),
    "recursive alias": ("x: 1\na: &a\n  - *a\n", 2, "aliases"),
    "3,000 deep list": ("a: " + "[" * 3000, 1, "nested too deep"),
    "3,000 deep mapping": ("{a: " * 3000, 1, "nested too deep"),
    "1,200 deep block": ("\n".join(" " * n + "a:" for n in range(1200)), MAX_DEPTH, "nested too deep"),
    "two documents": ("a: 1\n---\nb: 2\n", 2, "second document"),
    "Latin-1": ("a: 1\nb: caf\xe9\n".encode("latin-1"), 2, "0xe9"),
    "UTF-16": ("a: 1\n".encode("utf-16"), 1, "not UTF-8"),
    "NUL": ("a: 1\nb: x\0y\n", 2, "not text"),
    "lone surrogate": ("a: \ud800\n", 1, "not text"),
    "open quote": ("a: 'x\n", 2, "end of stream"),
    "open bracket": ("a: [1,\n", 2, "is not YAML"),
    "two colons": ("a: b: c\n", 1, "not allowed here"),
    "too many nodes": ("a: [" + "x," * MAX_NODES + "]", 1, "20,000"),
    "too long": ("# " + "x" * 2_000_000, 1, "1,048,576"),
}

DOUBTFUL = {
    "no": ("no", 'quote it: "no"'),
    "On": ("On", "true or false"),
    "sexagesimal": ("12:30", "minutes"),
    "octal": ("010", "octal"),
    "octal of YAML 1.2": ("0o17", "octal"),
    "hex": ("0x1F", "hex"),
    "underscores": ("1_000", "underscores"),
    "exponent without a dot": ("1e3", "Write 1000.0"),
    "small exponent": ("1e-30", "Write 1.0e-30"),
    "exponent beyond floats": ("1e999", "below 1.8e+308"),
    "nan": (".nan", "finite"),
    "NAN": (".NaN", "finite"),
    "inf": (".inf", "finite"),
    "minus inf": ("-.Inf", "finite"),
    "overflowing float": ("1.0e+400", "finite"),
    "30 digits": ("1" * 30, "out of range"),
    "5,000 digits": ("1" * 5000, "out of range"),
    "past 64 bits": (str(2**63), "out of range"),
    "impossible date": ("2024-02-30", "date"),
    "date": ("2024-02-03", "Quote it"),
    "time": ("2024-02-03 10:00:00", "date"),
    "equals sign": ("=", 'Quote it: "="'),
    "null": ("null", "has no value"),
    "tilde": ("~", "has no value"),
    "nothing": ("", "has no value"),
}


@pytest.mark.parametrize(("text", "line", "says"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_cannot_be_read_is_refused_with_its_line(text, line, says):
    with pytest.raises(Mistakes) as refused:
        read_yaml(text, "models/x/model.yaml")
    assert refused.value.mistakes[0].line == line
    assert f"models/x/model.yaml, line {line}" in str(refused.value)
    assert says in str(refused.value)
    assert isinstance(refused.value, Refusal)


@pytest.mark.parametrize(("written", "says"), DOUBTFUL.values(), ids=DOUBTFUL)
def test_a_doubtful_scalar_is_a_mistake_with_line_key_value_and_remedy(written, says):
    (mistake,) = read_yaml(f"a: 1\nb:\n  - {{c: x}}\n  - c: {written}\n", "x.yaml").mistakes
    assert (mistake.line, mistake.key) == (4, "b[1].c")
    assert mistake.value == (written if len(written) <= 60 else f"{written[:57]}...")
    assert says in str(mistake)


@pytest.mark.parametrize("written", [text for text, _ in DOUBTFUL.values()], ids=DOUBTFUL)
def test_a_quoted_scalar_is_text_whatever_it_looks_like(written):
    document = read_yaml(f'a: "{written}"', "x.yaml")
    assert (document.value, document.mistakes) == ({"a": written}, ())


def test_plain_scalars_are_read_as_yaml_1_1_and_1_2_both_read_them():
    text = "{i: -7, z: 0, f: 1.10, e: 1.5e+3, t: true, n: FALSE, s: y, u: a_b, v: 1.2.3, q: '7', w: Münster}"
    document = read_yaml(text.encode(), "x.yaml")
    assert document.mistakes == ()
    assert document.value == yaml.safe_load(text)
    assert document.value["i"] == -7 and document.value["f"] == 1.1 and document.value["t"] is True


def test_the_places_hold_line_and_text_as_written():
    document = read_yaml("a:\n  b: 1.10\n  c:\n    - 'x'\n    - y\n", "x.yaml")
    written = {path: (place.line, place.written) for path, place in document.places.items()}
    assert written[("a", "b")] == (2, "1.10")
    assert written[("a", "c", 0)] == (4, "'x'")
    assert written[("a", "c")] == (3, "")


def test_a_duplicate_key_is_named_with_both_lines():
    (mistake,) = read_yaml("a:\n  thr: 1\n  other: 2\n  thr: 3\n", "x.yaml").mistakes
    assert (mistake.line, mistake.key) == (4, "a.thr")
    assert "twice, first in line 2" in mistake.problem


@pytest.mark.parametrize("key", ["1", "no", "~", "true", "<<", "1.5", "? [a]\n"], ids=repr)
def test_a_key_must_be_text(key):
    (mistake,) = read_yaml(f"a: 1\n{key}: x\n", "x.yaml").mistakes
    assert mistake.line == 2
    assert "a key" in mistake.problem


def test_a_byte_order_mark_and_windows_line_ends_are_read():
    assert read_yaml("\ufeffa: 1\r\nb: x\r\n".encode(), "x.yaml").value == {"a": 1, "b": "x"}


def test_many_mistakes_are_told_in_the_order_of_their_lines_and_counted_when_too_many():
    refused = Mistakes("x.yaml", [Mistake(line, f"k{line}", "is wrong") for line in range(30, 0, -1)])
    lines = str(refused).splitlines()
    assert lines[0] == "x.yaml: 30 mistakes"
    assert lines[1] == "  line 1, k1: is wrong."
    assert lines[-1] == "  and 10 more"
    assert len(refused.mistakes) == 30


def test_mistakes_survive_the_way_to_another_process():
    refused = Mistakes("x.yaml", [Mistake(3, "a.b", "is wrong", "80", "Mend it.")])
    again = pickle.loads(pickle.dumps(refused))  # noqa: S301 (our own bytes)
    assert str(again) == str(refused) == "x.yaml, line 3, a.b: is wrong (value: 80). Mend it."
    assert again.mistakes == refused.mistakes


def test_odd_keys_are_shown_quoted():
    assert key_name(("features", "total charges", 0, "a\u202eb")) == "features['total charges'][0]['a\\u202eb']"


@given(
    st.recursive(
        st.text() | st.integers(-(2**63), 2**63 - 1) | st.booleans(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_a_dumper_quotes_is_read_back(value):
    text = yaml.safe_dump({"a": value}, allow_unicode=False, default_flow_style=False)
    document = read_yaml(text, "x.yaml")
    if not document.mistakes:
        assert document.value == {"a": _tuples(value)}
    for mistake in document.mistakes:  # the dumper does not quote text such as 1e3 or 0o17
        assert mistake.problem


def _tuples(value):
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return {key: _tuples(inner) for key, inner in value.items()} if isinstance(value, dict) else value


@given(st.text() | st.binary())
def test_any_text_is_read_or_refused_by_name(text):
    try:
        assert isinstance(read_yaml(text, "x.yaml").value, dict)
    except Mistakes as refused:
        assert str(refused).startswith("x.yaml")

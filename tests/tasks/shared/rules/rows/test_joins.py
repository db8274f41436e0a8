"""As-of joins: each row takes from each table the latest row known at its time, never a later one, never two."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.shared.rules.rows.buckets import tier_buckets
from tasks.shared.rules.rows.joins import is_tier_sampled, model_rows_sql, row_order_sql, sql_table_names
from tests.fixtures.join_cases import SCHEMAS, ask, at, comparable, engine, joined_spec, slowly, table

DATA = joined_spec().data


@pytest.fixture(scope="module", autouse=True)
def one_engine():
    yield
    engine().close()
    engine.cache_clear()


ROW = ("c1", at(10), "north", 1.0, "No")


def join(**tables):
    """Return the joined rows as dictionaries, in the order of the SQL."""
    named = {sql_table_names(DATA)[name or ""]: rows for name, rows in whole(tables).items()}
    return ask(model_rows_sql(DATA), **named).to_pylist()


def filled(rows):
    """Return the tables by their names in SQL: these rows of the main one, and none of the others."""
    return {sql_table_names(DATA)[name or ""]: rows_of for name, rows_of in whole({"main": rows}).items()}


def whole(tables):
    return {name: table(name, tables.get(name or "main", [])) for name in SCHEMAS}


hours = st.none() | st.integers(0, 6).map(at)
words = st.none() | st.sampled_from(["a", "b", "ä"])
numbers = st.none() | st.integers(0, 3).map(float)
asked = st.tuples(
    st.sampled_from(["a", "b", "c"]), st.integers(0, 6).map(at), words, numbers, st.sampled_from(["No", "Yes"])
)
accounts = st.tuples(words, hours, numbers, words)
weather = st.tuples(words, hours, numbers)
people = st.lists(st.tuples(words, words), max_size=4, unique_by=lambda row: row[0])


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(asked, max_size=20), st.lists(accounts, max_size=30), st.lists(weather, max_size=20), people)
def test_the_rows_are_those_that_a_slow_and_plain_join_finds(main, account_rows, weather_rows, people_rows):
    tables = whole({"main": main, "accounts": account_rows, "weather": weather_rows, "people": people_rows})
    fast = ask(model_rows_sql(DATA), **{sql_table_names(DATA)[name]: rows for name, rows in tables.items()})
    rows = [[row[column] for column in DATA.row_columns] for row in fast.to_pylist()]
    assert sorted(rows, key=comparable) == sorted(slowly(DATA, tables), key=comparable)


@pytest.mark.slow
@settings(max_examples=30)
@given(
    st.lists(asked, min_size=1, max_size=20),
    st.lists(accounts, max_size=20),
    st.lists(accounts, max_size=20),
    st.integers(0, 6),
)
def test_what_becomes_known_later_changes_no_earlier_row(main, known, later, hour):
    later = [(who, when, *rest) for who, when, *rest in later if when is not None and when > at(hour)]
    before, after = join(main=main, accounts=known), join(main=main, accounts=known + later)
    assert [row for row in before if row["asked_at"] <= at(hour)] == [
        row for row in after if row["asked_at"] <= at(hour)
    ]


def test_a_row_takes_the_latest_that_is_not_after_it():
    known = [("c1", at(1), 1.0, "x"), ("c1", at(9), 9.0, "y"), ("c1", at(11), 11.0, "z")]
    (row,) = join(main=[ROW], accounts=known)
    assert (row["balance"], row["segment"]) == (9.0, "y")


def test_what_is_known_at_the_very_time_counts():
    (row,) = join(main=[ROW], accounts=[("c1", at(1), 1.0, "x"), ("c1", at(10), 10.0, "y")])
    assert row["balance"] == 10.0


def test_a_value_that_was_unknown_at_the_latest_time_is_null_and_not_an_older_one():
    (row,) = join(main=[ROW], accounts=[("c1", at(1), 1.0, "x"), ("c1", at(9), None, "y")])
    assert (row["balance"], row["segment"]) == (None, "y")


def test_of_two_rows_of_the_same_time_the_greater_counts_whatever_their_order():
    tied = [("c1", at(9), 1.0, "z"), ("c1", at(9), 2.0, None), ("c1", at(9), 2.0, "a"), ("c1", at(9), None, "zz")]
    for rows in (tied, tied[::-1]):
        (row,) = join(main=[ROW], accounts=rows)
        assert (row["balance"], row["segment"]) == (2.0, "a")


def test_null_keys_meet_nothing_not_even_each_other():
    (row,) = join(main=[("c1", at(10), None, 1.0, "No")], weather=[(None, at(1), 5.0)], people=[(None, "FR")])
    assert (row["rain"], row["country"]) == (None, None)


def test_a_row_that_meets_nothing_stays_with_nulls():
    (row,) = join(main=[ROW])
    assert row == {"customer": "c1", "asked_at": at(10), "weight": 1.0, "depot": "north", "balance": None,
                   "segment": None, "rain": None, "country": None, "late": "No"}  # fmt: skip


def test_integer_keys_meet_the_same_keys_written_as_text():
    main = table("", [("7", at(1), None, 1.0, "No")])
    numbered = pa.table({"who": pa.array([7], pa.int64()), "country": ["FR"]})
    empty = {sql_table_names(DATA)[name]: table(name, []) for name in ("accounts", "weather")}
    (row,) = ask(model_rows_sql(DATA), main=main, **{sql_table_names(DATA)["people"]: numbered}, **empty).to_pylist()
    assert row["country"] == "FR"


def test_the_order_of_a_tier_is_by_bucket_entity_time_and_the_rest():
    rows = [("c2", at(1), "x", 1.0, "No"), ("c1", at(2), "x", 1.0, "No"), ("c1", at(1), "x", 2.0, "No"),
            ("c1", at(1), "x", 1.0, "No"), ("c1", at(1), None, 0.5, "No")]  # fmt: skip
    main = table("", rows)
    assert tier_buckets(pa.array(["c1"]))[0] < tier_buckets(pa.array(["c2"]))[0]
    alone = DATA.model_copy(update={"tables": {}, "features": {"depot": "category", "weight": "number"}})
    bucketed = main.append_column("_bucket", pa.array(tier_buckets(main["customer"])))
    expected = [rows[place] for place in (4, 3, 2, 1, 0)]
    for landed in (rows, rows[::-1]):
        joined = ask(f"WITH j AS ({model_rows_sql(DATA)}) FROM j {row_order_sql(DATA)}", **filled(landed))
        assert [tuple(row[column] for column in main.column_names) for row in joined.to_pylist()] == expected
        of_one = ask(
            f"{model_rows_sql(alone)} {row_order_sql(alone)}", main=bucketed if landed is rows else bucketed[::-1]
        )
        assert [tuple(row[column] for column in main.column_names) for row in of_one.to_pylist()] == expected


def test_only_tables_with_the_entity_among_their_keys_are_sampled():
    assert [name for name in sql_table_names(DATA) if is_tier_sampled(DATA, name)] == ["", "accounts", "people"]


@pytest.mark.parametrize("word", ['a"b', "a'b", "select", "a;b", "Ä x", "--"], ids=repr)
def test_a_column_may_be_called_anything(word):
    features = {(word if name == "weight" else name): kind for name, kind in DATA.features.items()}
    data = DATA.model_copy(update={"features": features})
    tables = {sql_table_names(DATA)[name]: table(name, []) for name in ("accounts", "weather", "people")}
    main = table("", [ROW]).rename_columns(["customer", "asked_at", "depot", word, "late"])
    (row,) = ask(model_rows_sql(data), main=main, **tables).to_pylist()
    assert row[word] == 1.0

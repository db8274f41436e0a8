"""Validation in pandas and on every engine: the same verdict and the same reasons.

For the types that SQL computes, `test_engines.py` checks Spark as well.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from blocks.common.errors import Corrupt, NotFound
from blocks.engines.base import Engine
from blocks.engines.duckdb import DuckDBEngine
from tasks.validation.rules.expectations import validate_table
from tasks.validation.rules.parquet_checks import SQL_PLANS
from tasks.validation.rules.parquet_rows import ParquetRows
from tasks.validation.rules.report import ValidationReport
from tasks.validation.rules.suites import Expectation, Suite
from tasks.validation.tasks import open_parquet_rows, parquet_rows
from tests.fixtures.expectation_tables import (
    EXPECTATIONS,
    IN_SQL,
    NUMBERS,
    PAIR,
    TABLES,
    by_pandas,
    column,
    laid,
    of,
    text,
    told,
    whole,
)


def by(engine: Engine) -> "Checked":
    def checked(files: tuple[str, ...], suite: Suite) -> ValidationReport:
        with open_parquet_rows(files, engine) as rows:
            return validate_table(rows, suite, key="id")

    return checked


Checked = Callable[[tuple[str, ...], Suite], ValidationReport]
DUCKDB = DuckDBEngine.model_validate({})
ENGINES: dict[str, Checked] = {"duckdb": by(DUCKDB)}
each_engine = pytest.mark.parametrize("by_engine", ENGINES.values(), ids=ENGINES)


N, T = {"column": "n"}, {"column": "t"}


pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:This pattern:UserWarning")


@each_engine
@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_every_expectation_has_one_verdict_and_one_reason_whatever_computes_it(
    tmp_path: Path, by_engine: Checked, name: str
) -> None:
    files, suite = laid(tmp_path, TABLES[name]), Suite("t", 2, tuple(EXPECTATIONS))
    by_engines, expected = by_engine(files, suite), by_pandas(files, suite)
    assert told(by_engines) == told(expected)
    assert (by_engines.passed, by_engines.rows, by_engines.reasons) == (
        expected.passed,
        expected.rows,
        expected.reasons,
    )


def test_every_type_that_sql_computes_is_in_the_contract() -> None:
    assert set(SQL_PLANS) == {each.type for each in EXPECTATIONS} & set(SQL_PLANS)


def asked(files: tuple[str, ...], suite: Suite, **limits: int) -> tuple[ValidationReport, list[tuple[str, int]]]:
    """Validate, and return the SQL that the engine received and how many rows it returned."""
    log: list[tuple[str, int]] = []

    def query(sql: str) -> pa.Table:
        answer = DUCKDB.query(sql, {"rows": files})
        log.append((sql, answer.num_rows))
        return answer

    return validate_table(ParquetRows(files, query, **limits), suite, key="id"), log


def test_every_type_that_sql_is_said_to_compute_is_computed_without_reading_a_column(tmp_path: Path) -> None:
    assert {each.type for each in IN_SQL} == set(SQL_PLANS)
    many = {"n": list(range(400)), "m": [1.5] * 400, "t": ["ab"] * 400, "u": ["x"] * 400}
    report, log = asked(laid(tmp_path, many), Suite("t", 1, tuple(IN_SQL)))
    assert len(report.results) == len(IN_SQL)
    assert max(rows for _, rows in log) <= 20, "no answer is more than a few rows"


def test_a_suite_that_holds_takes_one_pass_for_all_aggregates(tmp_path: Path) -> None:
    suite = Suite(
        "t", 1, tuple(of("column_values_to_be_between", column=c, min_value=-k) for c in "nm" for k in range(9))
    )
    report, log = asked(laid(tmp_path, TABLES["good"]), suite)
    assert report.passed, report.reasons
    assert len(log) == 2, "the columns, then the aggregates"


def test_what_sql_does_not_compute_reads_its_own_columns_alone(tmp_path: Path) -> None:
    report, log = asked(laid(tmp_path, TABLES["good"]), Suite("t", 1, (of("column_values_to_be_increasing", **N),)))
    assert not report.passed
    assert [sql for sql, rows in log if rows == 8] == ['SELECT "n", "id" FROM rows']


def test_what_sql_does_not_compute_is_refused_when_it_is_more_than_fits(tmp_path: Path) -> None:
    suite = Suite(
        "t", 1, (of("column_values_to_be_increasing", column="m"), of("column_min_to_be_between", **N, min_value=0))
    )
    report, _ = asked(laid(tmp_path, TABLES["good"]), suite, max_cells=15)
    assert [each.passed for each in report.results] == [False, True]
    assert "8 rows of 2 columns are more than the 15 values" in report.reasons[0]
    assert "docs/validation.md" in report.reasons[0] and "smaller tier" in report.reasons[0]


def test_a_table_expectation_that_sql_does_not_compute_is_refused_and_not_tried_on_some_columns(tmp_path: Path) -> None:
    report, _ = asked(laid(tmp_path, TABLES["good"]), Suite("t", 1, (of("table_of_a_new_kind", value=1),)))
    assert not report.passed and "is not computed by SQL" in report.reasons[0]


def test_a_suite_of_no_expectation_and_a_table_of_no_file_are_refused(tmp_path: Path) -> None:
    assert "holds no expectation" in asked(laid(tmp_path, TABLES["good"]), Suite("t", 1, ()))[0].reasons[0]
    report = validate_table(parquet_rows([], DUCKDB), Suite("t", 1, (of("column_to_exist", **N),)), key="id")
    assert (report.passed, report.rows) == (False, 0) and "0 rows" in report.reasons[0]


def test_a_column_that_one_file_holds_twice_is_refused(tmp_path: Path) -> None:
    (first, *_), twice = laid(tmp_path, TABLES["good"]), tmp_path / "twice.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["k"]), pa.array([1]), pa.array([2])], names=["id", "n", "n"]), twice)
    report = by(DUCKDB)((first, str(twice)), Suite("t", 1, (of("column_values_to_be_between", **N, min_value=0),)))
    assert "column 'n' is there more than once" in report.reasons[0]


def test_a_file_that_cannot_be_read_is_an_error_and_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    suite = Suite("t", 1, (of("column_to_exist", **N),))
    with pytest.raises((Corrupt, NotFound)):
        by(DUCKDB)((str(tmp_path / "torn.parquet"),), suite)
    with pytest.raises(NotFound):
        by(DUCKDB)((str(tmp_path / "gone.parquet"),), suite)


EXAMPLES = [
    (of("column_values_to_be_between", **N, max_value=4), (("k0", "5"), ("k5", "9"))),
    (of("column_values_to_not_be_in_set", **T, value_set=("y2",)), (("k1", "y2"), ("k7", "y2"))),
    (of("column_values_to_be_unique", **N), (("k2", "3"), ("k3", "3"))),
    (of("compound_columns_to_be_unique", column_list=("n", "m")), (("k2", "n=3, m=4"), ("k3", "n=3, m=4"))),
    (of("column_pair_values_a_to_be_greater_than_b", column_A="n", column_B="m", mostly=0.5),
     tuple((f"k{n}", f"n={NUMBERS[n]}, m={NUMBERS[n] + 1}") for n in range(5))),
    (of("column_mean_to_be_between", **N, min_value=99), ()),
]  # fmt: skip


@each_engine
@pytest.mark.parametrize(("expectation", "examples"), EXAMPLES, ids=[each.type for each, _ in EXAMPLES])
def test_at_most_five_rows_that_break_a_rule_are_shown_with_their_key(
    tmp_path: Path, by_engine: Checked, expectation: Expectation, examples: tuple[tuple[str, str], ...]
) -> None:
    report = by_engine(laid(tmp_path, TABLES["good"]), Suite("t", 1, (expectation,)))
    assert report.results[0].examples == examples


def test_a_null_is_shown_as_pandas_shows_it(tmp_path: Path) -> None:
    files, suite = laid(tmp_path, TABLES["some null"]), Suite("t", 1, (of("column_values_to_not_be_null", **N),))
    assert by(DUCKDB)(files, suite).results[0].examples == by_pandas(files, suite).results[0].examples


def test_two_quantiles_of_a_column_have_each_its_own_value(tmp_path: Path) -> None:
    files, ranges = laid(tmp_path, TABLES["good"]), [((0.5,), ((3, 4),)), ((1,), ((9, 9),)), ((0,), ((1, 1),))]
    rules = tuple(
        of("column_quantile_values_to_be_between", **N, quantile_ranges={"quantiles": shares, "value_ranges": bounds})
        for shares, bounds in ranges
    )
    for report in (by_pandas(files, Suite("t", 1, rules)), by(DUCKDB)(files, Suite("t", 1, rules))):
        assert report.passed, report.reasons
        assert [r.observed for r in report.results][1:] == [
            "{'quantiles': [1], 'values': [9]}",
            "{'quantiles': [0], 'values': [1]}",
        ]


def test_names_and_values_are_never_sql(tmp_path: Path) -> None:
    nasty = """a"b'; DROP VIEW rows; --"""
    files = laid(tmp_path, {nasty: ["x'", "y", "x'"]})
    rules = (
        of("column_values_to_be_in_set", column=nasty, value_set=("x'", "';")),
        of("column_values_to_be_unique", column=nasty),
    )
    report = by(DUCKDB)(files, Suite("t", 1, rules))
    assert [each.unexpected_count for each in report.results] == [1, 2]
    assert told(report) == told(by_pandas(files, Suite("t", 1, rules)))


double = st.one_of(st.floats(-9, 9, width=16), st.sampled_from([math.nan, math.inf, -math.inf, 0.1, -0.0]))


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    rows = draw(st.integers(0, 12))
    numbers = st.one_of(
        column(whole, rows).map(lambda v: pa.array(v, pa.int64())),
        column(double, rows).map(lambda v: pa.array(v, pa.float64())),
    )
    texts = column(text, rows).map(lambda v: pa.array(v, pa.string()))
    return {"n": draw(numbers), "m": draw(numbers), "t": draw(texts), "u": draw(texts)}


@st.composite
def rules(draw: st.DrawFn) -> Expectation:
    low, high = sorted([draw(st.one_of(whole, st.floats(-9, 9, width=16))), draw(whole)])
    bounds = {"min_value": low, "max_value": high}
    mostly = draw(st.sampled_from([{}, {"mostly": 0.5}, {"mostly": 0.9}]))
    columns = draw(st.sampled_from([N, {"column": "m"}]))
    strict = draw(st.sampled_from([{}, {"strict_min": True}, {"strict_max": True}]))
    values = tuple(draw(st.lists(st.one_of(whole, st.floats(-9, 9, width=16)), min_size=1, max_size=5)))
    share = draw(st.floats(0, 1))
    ignored = draw(st.sampled_from(["both_values_are_missing", "either_value_is_missing", "neither"]))
    return draw(st.sampled_from([
        of("column_values_to_be_between", **columns, **bounds, **strict, **mostly), of("column_values_to_not_be_null", **columns, **mostly),
        of("column_values_to_be_in_set", **columns, value_set=values, **mostly), of("column_values_to_be_unique", **columns, **mostly),
        of("column_values_to_be_in_set", **T, value_set=tuple(draw(st.lists(text, min_size=1, max_size=4))), **mostly),
        of("column_values_to_match_regex", **T, regex=draw(st.sampled_from(["^a", "a$", "[^b]", "a+b?", "A|b", ".", "\\s"])), **mostly),
        of("column_value_lengths_to_be_between", **T, min_value=0, max_value=max(high, 0), **mostly),
        of("column_min_to_be_between", **columns, **bounds), of("column_max_to_be_between", **columns, **bounds),
        of("column_median_to_be_between", **columns, **bounds), of("column_unique_value_count_to_be_between", **columns, max_value=high),
        of("column_quantile_values_to_be_between", **columns, quantile_ranges={"quantiles": (share,), "value_ranges": ((low, high),)}),
        of("column_distinct_values_to_equal_set", **columns, value_set=values), of("column_distinct_values_to_be_in_set", **columns, value_set=values),
        of("column_pair_values_a_to_be_greater_than_b", **PAIR, ignore_row_if=ignored, or_equal=draw(st.booleans()), **mostly),
        of("column_pair_values_to_be_equal", **PAIR, ignore_row_if=ignored, **mostly),
        of("compound_columns_to_be_unique", column_list=("n", "t"), **mostly), of("compound_columns_to_be_unique", column_list=("m", "n", "u")),
        of("column_proportion_of_unique_values_to_be_between", **columns, min_value=share),
        of("column_proportion_of_non_null_values_to_be_between", **T, min_value=share),
    ]))  # fmt: skip


@pytest.mark.slow
# Many rules per table, because opening one is slow; failing examples are not shrunk, which takes minutes.
@settings(max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(table=tables(), suite=st.lists(rules(), min_size=6, max_size=20))
def test_any_small_table_gets_the_same_verdict_from_pandas_and_from_duckdb(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any], suite: list[Expectation]
) -> None:
    files = laid(tmp_path_factory.mktemp("rows"), table)
    whole_suite = Suite("t", 1, tuple(suite))
    assert told(by(DUCKDB)(files, whole_suite)) == told(by_pandas(files, whole_suite))

"""Bins that hold with ties and point masses: what moved is in other bins than before, and chance alone is no drift."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from blocks.engines.duckdb import DuckDBEngine
from blocks.engines.spark import to_spark_sql
from tasks.monitoring.rules.bins import (
    FEW_VALUES,
    MAX_CATEGORY_VALUES,
    category_column,
    is_free_text,
    number_column,
    text_column,
)
from tasks.monitoring.rules.columns import BinCounts, count_windows, in_parts, values_sql
from tasks.monitoring.rules.drift import ColumnDrift, column_drifts, window_findings
from tasks.monitoring.rules.findings import MonitoringRules
from tasks.monitoring.rules.quality import check_label_values
from tests.fixtures.distributions import MOVED

RULES = MonitoringRules()
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(("rows", "window"), [(1000, 300), (5000, 500), (50_000, 5000)])
@pytest.mark.parametrize(("before", "now"), MOVED.values(), ids=MOVED)
def test_a_change_is_seen_by_the_index_and_by_the_test(before, now, rows, window) -> None:
    (compared,) = drifts_of(before(np.random.default_rng(1), rows), now(np.random.default_rng(2), window))
    assert compared.psi >= RULES.psi_threshold
    assert compared.p_value < RULES.significance_level / 20, "also among twenty columns"
    assert compared.drifted


@pytest.mark.parametrize(("before", "now"), MOVED.values(), ids=MOVED)
def test_a_change_of_a_regression_s_labels_is_seen_as_well(before, now) -> None:
    labels = before(np.random.default_rng(3), 2000), now(np.random.default_rng(4), 500)
    (found,) = check_label_values("price", *labels, RULES)
    assert found.key == "labels:price"


UNCHANGED = {
    **{f"{name}, before": before for name, (before, _) in MOVED.items()},
    **{f"{name}, after": now for name, (_, now) in MOVED.items()},
}


@pytest.mark.parametrize(("rows", "window"), [(50, 200), (300, 300), (1000, 10_000), (10_000, 200)])
def test_chance_alone_is_no_drift(rows: int, window: int) -> None:
    false = {
        (name, seed)
        for name, draw in UNCHANGED.items()
        for seed in range(3)
        for compared in drifts_of(
            draw(np.random.default_rng(seed), rows), draw(np.random.default_rng(seed + 9), window)
        )
        if compared.drifted
    }
    assert len(false) <= 3, f"{false}: of {3 * len(UNCHANGED)} at a level of 1 %"


SAME = {
    "0.1 + 0.2": (0.3, 0.1 + 0.2),
    "minus zero": (0.0, -0.0),
    "stored in 32 bits": (0.1, float(np.float32(0.1))),
    "what a difference leaves of zero": (0.0, 0.1 + 0.2 - 0.3),
    "a large number": (1e308, 1e308),
    "the largest": (float(np.finfo(float).max), float(np.finfo(float).max)),
    "the smallest": (5e-324, 5e-324),
}


@pytest.mark.parametrize(("before", "now"), SAME.values(), ids=SAME)
def test_a_point_mass_is_the_same_number_however_it_was_computed(before: float, now: float) -> None:
    assert drifts_of(np.full(500, before), np.full(500, now))[0].psi == 0
    spread = np.concatenate([np.full(500, before), np.random.default_rng(0).normal(5, 1, 500)])
    moved = np.concatenate([np.full(500, now), np.random.default_rng(1).normal(5, 1, 500)])
    assert not drifts_of(spread, moved)[0].drifted


def test_two_results_of_the_same_arithmetic_are_one_value_of_the_reference() -> None:
    assert number_column("x", np.tile([0.3, 0.1 + 0.2], 250)).bins == 3
    assert number_column("x", np.tile([0.3, 0.1 + 0.2, 0.0, -0.0, 0.1 + 0.2 - 0.3], 100)).bins == 5


def test_a_number_with_few_values_has_a_bin_for_each_and_for_what_lies_between() -> None:
    column = number_column("x", np.repeat([1.0, 2.0, 5.0], [700, 250, 50]))
    assert [column.label(at) for at in range(column.bins)] == ["< 1", "1", "1 to 2", "2", "2 to 5", "5", "≥ 5"]
    assert column.bins_of([-3, 1, 1.5, 2, 4.9, 5, 6]) == list(range(7))
    many = number_column("x", np.repeat(np.arange(FEW_VALUES + 1.0), 10))
    assert many.points == () and many.bins == 12


def test_a_few_rows_make_no_bins_of_their_own() -> None:
    random = np.random.default_rng(5)
    assert number_column("x", random.normal(0, 1, 19)).bins == 2
    assert number_column("x", np.array([3.0])).bins == 2
    assert number_column("x", np.array([NAN, INF])).edges == (0.5,)
    fifty = random.normal(0, 1, 50)
    assert min(counts_of(number_column("x", fifty), fifty)) >= 9


@settings(max_examples=200, deadline=None)
@given(some.lists(some.floats(allow_nan=True, width=64) | some.sampled_from([0.0, -0.0, 1.0, 1e308]), max_size=60))
def test_any_reference_has_finite_edges_in_order(values: list[float]) -> None:
    column = number_column("x", np.array(values, dtype=float))
    assert list(column.edges) == sorted(set(column.edges)) and np.isfinite(column.edges).all()
    assert len(column.edges) <= 2 * FEW_VALUES + 12
    assert len({column.label(at) for at in range(column.bins)}) >= 2
    assert all(column.edges[at - 1] <= value < column.edges[at] for at, value in column.point_bins.items())


def test_numbers_after_none_at_all_and_none_after_numbers_are_found_and_neither_in_both() -> None:
    none, some_rows = BinCounts((0, 0), nulls=500), BinCounts((300, 200))
    column = number_column("x", np.full(500, NAN))
    for reference, window, causes in ((none, some_rows, ["nulls"]), (some_rows, none, ["nulls"]), (none, none, [])):
        assert [found.cause for found in window_findings([compare(column, reference, window)], RULES)] == causes


def test_a_text_is_free_when_most_rows_have_their_own() -> None:
    assert is_free_text(600, 1000) and is_free_text(60, 60)
    assert not is_free_text(500, 1000) and not is_free_text(MAX_CATEGORY_VALUES, 60)


def test_free_text_is_binned_by_length_and_never_by_its_values(tmp_path: Path) -> None:
    random = np.random.default_rng(6)

    def texts(rows: int, mean: int) -> list[str]:
        return [
            "n/a" if random.random() < 0.2 else "é" * int(n) + str(random.random()) for n in random.poisson(mean, rows)
        ]

    before = texts(2000, 30)
    lengths = np.array([len(each) for each in before], dtype=float)
    column = text_column("note", [("n/a", 400), ("ééé", 1)], lengths, len(before))
    assert (column.values, column.display_name) == (("n/a",), "note (length)")
    reference = counted(tmp_path, column, before)
    assert (reference.rows, reference.bins[0]) == (2000, before.count("n/a"))
    assert not compare(column, reference, counted(tmp_path, column, texts(500, 30))).drifted
    longer = compare(column, reference, counted(tmp_path, column, texts(500, 60)))
    assert longer.drifted and "mean" in longer.change
    assert compare(column, reference, counted(tmp_path, column, ["n/a"] * 500)).change == "n/a 21% → 100%"


def test_a_value_that_takes_over_among_thousands_is_seen(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    shops = [f"shop {each}" for each in random.integers(0, 1000, 5000)]
    column = category_column("shop", [(f"shop {each}", 5) for each in range(MAX_CATEGORY_VALUES)], distinct=1000)
    reference = counted(tmp_path, column, shops)
    assert not compare(column, reference, counted(tmp_path, column, shops[:1000])).drifted
    new = compare(column, reference, counted(tmp_path, column, ["shop new"] * 300 + shops[:700]))
    assert new.drifted and "(others " in new.change


def test_unseen_values_that_chance_explains_are_no_finding() -> None:
    column = category_column("town", [(f"t{each}", 1) for each in range(40)])
    singles = BinCounts((*[1] * 40, 0))
    often_new = BinCounts((*[4] * 40, 40), unseen=(("x", 40),))
    usual = BinCounts((*[25] * 40, 0))
    by_reference = [
        [found.cause for found in window_findings([compare(column, reference, often_new)], RULES)]
        for reference in (singles, usual)
    ]
    assert by_reference == [[], ["new values", "distribution"]]


def test_the_number_of_queries_and_their_size_grow_with_the_columns_and_not_faster(tmp_path: Path) -> None:
    asked: list[str] = []

    def work(columns: int, rows: int) -> tuple[int, int]:
        asked.clear()
        numbers = [number_column(f"n{at}", np.arange(100.0)) for at in range(columns)]
        count_windows(lambda query: asked.append(query) or pa.table({}), numbers, "rows", rows=rows)
        return len(asked), sum(map(len, asked))

    few, many = work(100, 50_000), work(400, 50_000)
    assert many[0] <= 4 * few[0] <= 20 and many[1] <= 4.2 * few[1]
    assert all(query.count("rows") == 1 for query in asked), "each reads its rows once"
    assert len(in_parts(range(400), 100_000_000)) == 400, "columns of very many rows are not held in memory together"


def test_spark_understands_the_queries() -> None:
    columns = [
        number_column("x", np.arange(100.0)),
        category_column("c", [("it's", 1)], distinct=99),
        text_column("t", [("n/a", 50)], np.arange(100.0), 100),
    ]

    def translate(query: str) -> pa.Table:
        assert "WITH binned AS" in to_spark_sql(query)
        return pa.table({})

    count_windows(translate, columns, "rows")
    assert "OVER" in to_spark_sql(values_sql({"c": ("a",), "t": ()}, "rows", 5))


def drifts_of(before, now) -> list[ColumnDrift]:
    column = number_column("x", before)
    return [compare(column, *(BinCounts(tuple(counts_of(column, values))) for values in (before, now)))]


def counts_of(column, values) -> list[int]:
    found: list[int] = np.bincount(column.bins_of(values), minlength=column.bins).tolist()
    return found


def compare(column, reference: BinCounts, window: BinCounts) -> ColumnDrift:
    (compared,) = column_drifts([column], {column.name: reference}, {column.name: window}, RULES)
    return compared


def counted(folder: Path, column, values: list[str]) -> BinCounts:
    pq.write_table(pa.table({column.name: values}), folder / "rows.parquet")
    with DuckDBEngine().query_session({"rows": (str(folder / "rows.parquet"),)}) as query:
        return count_windows(query, [column], "rows")[0][column.name]

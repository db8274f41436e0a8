"""Effect sizes and significance tests: the values of their definitions; chance is distinguished from change."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, fisher_exact
from statsmodels.stats.multitest import multipletests

from tasks.monitoring.rules.effects import holm_significant, homogeneity_p_value, proportions_p_value, stability_index

COUNTS = st.lists(st.integers(0, 500), min_size=2, max_size=12)


def test_the_index_of_a_shifted_normal_is_the_square_of_the_shift():
    random = np.random.default_rng(1)
    edges = np.quantile(random.normal(0, 1, 200_000), np.linspace(0, 1, 11)[1:-1])
    for shift, expected in ((0.2, 0.04), (0.5, 0.25), (1.0, 1.0)):
        then, now = (
            np.bincount(np.searchsorted(edges, random.normal(at, 1, 200_000)), minlength=10) for at in (0, shift)
        )
        assert stability_index(then, now) == pytest.approx(expected, rel=0.1)


def test_rows_that_differ_by_chance_alone_have_an_index_about_zero_whatever_their_number():
    random = np.random.default_rng(2)
    for rows in (200, 1000, 20_000):
        found = [
            stability_index(random.multinomial(5000, [0.1] * 10), random.multinomial(rows, [0.1] * 10))
            for _ in range(300)
        ]
        assert np.mean(found) < 10 / rows
        assert max(found) < 0.1


@given(COUNTS, st.data())
def test_the_index_is_symmetric_finite_and_never_negative(before, data):
    now = data.draw(st.lists(st.integers(0, 500), min_size=len(before), max_size=len(before)))
    index = stability_index(before, now)
    if not sum(before) or not sum(now):
        assert math.isnan(index)
        return
    assert math.isfinite(index) and index >= 0
    assert index == pytest.approx(stability_index(now, before), abs=1e-9)
    assert stability_index(before, before) == 0
    assert 0 <= homogeneity_p_value(before, now) <= 1


def test_chance_is_chi_squared_where_no_bin_is_rare():
    table = [[30, 50, 70], [60, 40, 55]]
    assert homogeneity_p_value(*table) == pytest.approx(chi2_contingency(table, correction=False).pvalue)
    assert homogeneity_p_value([50, 50], [50, 50]) == 1
    assert proportions_p_value(0, 100, 0, 100) == 1
    assert homogeneity_p_value([0, 0], [5, 5]) == 1, "without rows nothing is beyond chance"


@pytest.mark.parametrize(
    ("reference", "current"),
    [
        ([], []),
        ([0, 0], [0, 0]),
        ([5, 5], [0, 0]),
        ([7], [9]),
        ([9, 0], [400, 0]),
        ([1, 1, 1], [1, 0, 2]),
        ([20, 40, 80], [10, 20, 40]),
    ],
    ids=["no bins", "no rows", "no rows now", "one bin", "one bin filled", "rare bins alone", "the same shares"],
)
def test_nothing_is_beyond_chance_where_nothing_can_differ(reference, current):
    assert homogeneity_p_value(reference, current) == 1


def test_chance_of_two_bins_is_that_of_pearson_without_a_correction_for_continuity():
    statistic = 100 * (10 * 40 - 20 * 30) ** 2 / (30 * 70 * 40 * 60)
    expected = math.erfc(math.sqrt(statistic / 2))  # one degree of freedom: the square of a normal variable
    assert homogeneity_p_value([10, 20], [30, 40]) == pytest.approx(expected, rel=1e-12)
    assert proportions_p_value(10, 30, 30, 70) == pytest.approx(expected, rel=1e-12)


def test_bins_without_rows_do_not_count():
    assert homogeneity_p_value([30, 0, 50, 0], [60, 0, 40, 0]) == homogeneity_p_value([30, 50], [60, 40])
    assert homogeneity_p_value([50, 0], [0, 50]) == pytest.approx(math.erfc(math.sqrt(50)), rel=1e-12)


def test_rare_bins_are_taken_together():
    assert homogeneity_p_value([1000, 1, 1, 1, 1], [1000, 1, 1, 1, 1]) == 1
    assert homogeneity_p_value([1000, 0, 0], [1000, 1, 1]) > 0.01


def test_rows_in_a_bin_that_the_reference_does_not_have_are_beyond_chance():
    for reference, current in (([3000, 0], [485, 15]), ([1000, 500, 0], [100, 90, 10]), ([100_000, 0], [195, 5])):
        assert homogeneity_p_value(reference, current) < 1e-6
        assert homogeneity_p_value(current, reference) == pytest.approx(homogeneity_p_value(reference, current))
    assert homogeneity_p_value([3000, 0], [485, 15]) == pytest.approx(2 * fisher_exact([[3000, 0], [485, 15]]).pvalue)
    assert homogeneity_p_value([50, 0], [199, 1]) == 1
    assert homogeneity_p_value([10_000_000, 0], [9_999_000, 1000]) < 1e-200, "also of very many rows"


@pytest.mark.parametrize("sizes", [(50, 200), (5000, 200), (300, 300)])
def test_rare_bins_are_found_by_chance_as_often_as_said(sizes):
    random = np.random.default_rng(4)
    shares = [0.9, *[0.02] * 4, *[0.001] * 20]
    p_values = [homogeneity_p_value(*(random.multinomial(rows, shares) for rows in sizes)) for _ in range(1500)]
    assert np.mean(np.array(p_values) <= 0.05) < 0.065
    assert np.mean(np.array(p_values) <= 0.01) < 0.018


def test_bins_that_are_empty_on_both_sides_do_not_change_the_index():
    assert stability_index([40, 0, 10, *[0] * 40], [4000, 0, 1000, *[0] * 40]) == 0
    assert stability_index([40, 9, 0], [90, 30, 0]) == stability_index([40, 9], [90, 30])


def test_holm_lets_one_false_finding_through_at_most_as_often_as_said():
    assert holm_significant({"a": 0.001, "b": 0.004, "c": 0.5}, 0.01) == {"a", "b"}
    assert holm_significant({"a": 0.004, "b": 0.004, "c": 0.004}, 0.01) == frozenset()
    assert holm_significant({"a": math.nan}, 0.01) == frozenset(), "what was not measured is not found"
    assert holm_significant({}, 0.01) == frozenset()


@pytest.mark.parametrize(
    ("chances", "found"),
    [
        ({"a": 0.005, "b": 0.005}, "ab"),
        ({"a": 0.01}, "a"),
        ({"b": 0.02, "a": 0.005}, "a"),
        ({"a": 0.001, "b": 0.008, "c": 0.0081}, "a"),
        ({"a": 0.0, "b": 1.0, "c": 0.0}, "ac"),
        ({"a": 1.0, "b": 1.0}, ""),
        ({"a": math.nan, "b": 0.005}, "b"),
        ({"a": math.nan, "b": 0.006}, ""),
    ],
    ids=[
        "ties",
        "at the level",
        "at its share",
        "none after the first that fails",
        "0 and 1",
        "ones",
        "NaN is never found",
        "NaN counts as a test",
    ],
)
def test_holm_of_edge_cases(chances, found):
    assert holm_significant(chances, 0.01) == frozenset(found)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0025, 0.005, 0.01])), min_size=1, max_size=12))
def test_holm_finds_what_statsmodels_finds(values):
    found = holm_significant({str(place): value for place, value in enumerate(values)}, 0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gc.collect", lambda: 0)  # which statsmodels calls each time
        rejected = multipletests(values, alpha=0.01, method="holm")[0]
    assert found == {str(place) for place, wrong in enumerate(rejected) if wrong}

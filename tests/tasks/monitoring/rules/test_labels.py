"""Label shift: a change of the labels' shares is found only beyond chance and when large enough."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from tasks.monitoring.rules.findings import MonitoringRules
from tasks.monitoring.rules.quality import check_class_shares, check_label_values

RULES = MonitoringRules()
CASES = {
    "as before": ((730, 270), (365, 135), None),
    "within 5 points, on any number of rows": ((73_000, 27_000), (69_000, 31_000), None),
    "5 points that chance makes": ((730, 270), (68, 32), None),
    "8 points": ((5145, 1898), (650, 350), "35.0% have churn = Yes; in the reference data it was 26.9%"),
    "20 points are critical": ((5145, 1898), (500, 500), "50.0% have churn = Yes; in the reference data it was 26.9%"),
    "a class that is gone": ((730, 270), (500, 0), "0.0% have churn = Yes; in the reference data it was 27.0%"),
    "nothing before": ((0, 0), (10, 10), None),
    "nothing now": ((10, 10), (0, 0), None),
}


@pytest.mark.parametrize(("before", "now", "says"), CASES.values(), ids=CASES)
def test_what_is_told_of_two_classes(before: tuple[int, ...], now: tuple[int, ...], says: str | None) -> None:
    found = check_class_shares("churn", ("No", "Yes"), before, now, RULES)
    assert [says in each.text for each in found] == ([True] if says else [])
    assert all(each.key == "labels:churn" and each.kind == "drift" for each in found)
    assert [each.severity for each in found] in (
        [],
        ["critical" if each.effect_size >= 0.2 else "warning" for each in found],
    )


def test_the_class_that_changed_most_is_named() -> None:
    (found,) = check_class_shares("grade", ("a", "b", "c"), (500, 300, 200), (480, 120, 400), RULES)
    assert "40.0% have grade = c; in the reference data it was 20.0%" in found.text


def test_chance_alone_is_told_at_most_once_in_a_hundred_looks() -> None:
    random = np.random.default_rng(5)
    for size in (100, 500, 2000):
        told = sum(
            bool(check_class_shares("churn", ("No", "Yes"), (5145, 1898), (size - found, found), RULES))
            for found in random.binomial(size, 1898 / 7043, 2000)
        )
        assert told <= 20, size


def test_a_shift_of_a_regression_s_labels_is_told_and_chance_is_not() -> None:
    random = np.random.default_rng(3)
    before = random.normal(100, 20, 2000)
    assert check_label_values("price", before, random.normal(100, 20, 500), RULES) == []
    (found,) = check_label_values("price", before, random.normal(112, 20, 500), RULES)
    assert (found.key == "labels:price" and "mean 99" in found.text) or "mean 100" in found.text
    assert check_label_values("price", before, np.empty(0), RULES) == []


SOME = some.lists(some.integers(0, 5000), min_size=3, max_size=3)


@given(SOME, SOME)
def test_whatever_is_told_is_a_change_that_matters(before: list[int], now: list[int]) -> None:
    for found in check_class_shares("grade", ("a", "b", "c"), before, now, RULES):
        shares = [[count / sum(counts) for count in counts] for counts in (before, now)]
        assert found.effect_size == pytest.approx(max(abs(a - b) for a, b in zip(*shares, strict=True)))
        assert found.effect_size >= RULES.min_label_change

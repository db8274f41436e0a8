"""Tiers are nested and stable, the holdout is whole entities, and shares that mean nothing are refused."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.logic.buckets import tier_buckets
from tasks.logic.refusal import Refusal
from tasks.logic.tiers import TIERS, is_holdout, split, tier_bound

shares = st.decimals("0.0001", "1", places=4).map(float)
keys = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=60)


@dataclass(frozen=True)
class Rates:
    development: float = 0.01
    staging: float = 0.1
    production: float = 1.0


def in_tier(rates, tier, entities):
    return set(np.asarray(entities)[tier_buckets(pa.array(entities)) < tier_bound(rates, tier)].tolist())


@pytest.mark.parametrize(
    ("rate", "bound"),
    [(0.01, 100), (0.07, 700), (0.29, 2900), (0.1, 1000), (1.0, 10_000), (1, 10_000), (0.00001, 1)],
)
def test_a_rate_is_taken_as_it_is_written(rate, bound):
    assert tier_bound(Rates(development=rate, staging=1.0), "development") == bound


@settings(max_examples=30, deadline=None)
@given(st.tuples(shares, shares, shares).map(sorted), keys)
def test_each_tier_holds_the_one_before_it(three, entities):
    rates = Rates(*three)
    development, staging, production = (in_tier(rates, tier, entities) for tier in TIERS)
    assert development <= staging <= production


@settings(max_examples=30, deadline=None)
@given(shares, keys, keys)
def test_nobody_changes_place_when_data_is_added(rate, before, added):
    rates = Rates(rate, rate, 1.0)
    small, large = in_tier(rates, "staging", before), in_tier(rates, "staging", before + added)
    assert small == large & set(before)
    if rate < 1:
        first, both = is_holdout(pa.array(before), rate), is_holdout(pa.array(before + added), rate)
        assert np.array_equal(first, both[: len(before)])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=60, max_size=200))
def test_a_split_keeps_entities_whole_and_loses_no_row(entities):
    table = pa.table({"who": entities, "row": range(len(entities))})
    try:
        parts = split(table, "who", 0.3)
    except Refusal as refusal:
        assert "may train" in str(refusal)
        return
    train, holdout = set(parts.train["who"].to_pylist()), set(parts.holdout["who"].to_pylist())
    assert not train & holdout
    rows = parts.train["row"].to_pylist() + parts.holdout["row"].to_pylist()
    assert sorted(rows) == list(range(len(entities)))
    assert parts.train.schema == table.schema


def test_the_holdout_of_a_tier_is_its_share():
    entities = pa.array(np.arange(50_000))
    tier = pa.table({"who": entities}).filter(pa.array(tier_buckets(entities) < 1_000))
    parts = split(tier, "who", 0.2)
    assert parts.holdout.num_rows / tier.num_rows == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan"), float("inf"), True], ids=str)
def test_a_share_that_means_nothing_is_refused(share):
    with pytest.raises(Refusal, match="above 0 and at most 1"):
        is_holdout(pa.array(["a"]), share)
    with pytest.raises(Refusal, match=r"tiers\.staging"):
        tier_bound(Rates(staging=share), "production")


def test_a_holdout_of_everything_is_refused():
    with pytest.raises(Refusal, match="everything"):
        is_holdout(pa.array(["a"]), 1.0)


def test_an_unknown_tier_and_tiers_that_are_not_nested_are_refused():
    with pytest.raises(Refusal, match=r"no such tier.*'prod'.*production"):
        tier_bound(Rates(), "prod")
    with pytest.raises(Refusal, match="hold the one before it"):
        tier_bound(Rates(development=0.5, staging=0.1), "production")


def test_an_empty_side_of_a_split_is_refused():
    with pytest.raises(Refusal, match="of 0 rows"):
        split(pa.table({"who": pa.array([], type=pa.string())}), "who", 0.2)
    with pytest.raises(Refusal, match=r"1 may train and 0 decide|0 may train and 1 decide"):
        split(pa.table({"who": ["a"]}), "who", 0.2)
    with pytest.raises(Refusal, match="'wo'"):
        split(pa.table({"who": ["a"]}), "wo", 0.2)

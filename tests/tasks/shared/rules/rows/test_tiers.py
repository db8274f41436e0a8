"""Data tiers: nested and stable, as a whole or by stratum; invalid shares are refused."""

from dataclasses import dataclass
from decimal import Decimal

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.buckets import holdout_buckets, tier_buckets
from tasks.shared.rules.rows.tiers import (
    TIERS,
    TierRule,
    holdout_bucket_bound,
    refuse_empty_split,
    refuse_too_many_strata,
    stratum_bucket_bounds,
    tier_bucket_bound,
)

shares = st.decimals("0.0001", "1", places=4).map(float)
keys = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=60)


@dataclass(frozen=True)
class Rates:
    development: float = 0.01
    staging: float = 0.1
    full: float = 1.0


def in_tier(rates, tier, entities):
    whole = np.asarray(entities, dtype=object)  # numpy's own texts lose a NUL at their end
    return set(whole[tier_buckets(pa.array(entities)) < tier_bucket_bound(rates, tier)].tolist())


@pytest.mark.parametrize(
    ("rate", "bound"),
    [(0.01, 100), (0.07, 700), (0.29, 2900), (0.1, 1000), (1.0, 10_000), (1, 10_000), (0.00001, 1)],
)
def test_a_rate_is_taken_as_it_is_written(rate, bound):
    assert tier_bucket_bound(Rates(development=rate, staging=1.0), "development") == bound


@settings(max_examples=30)
@given(st.tuples(shares, shares, shares).map(sorted), keys)
def test_each_tier_holds_the_one_before_it(three, entities):
    rates = Rates(*three)
    development, staging, production = (in_tier(rates, tier, entities) for tier in TIERS)
    assert development <= staging <= production


@settings(max_examples=30)
@given(shares, keys, keys)
def test_nobody_changes_place_when_data_is_added(rate, before, added):
    rates = Rates(rate, rate, 1.0)
    small, large = in_tier(rates, "staging", before), in_tier(rates, "staging", before + added)
    assert small == large & set(before)
    first, both = holdout_buckets(pa.array(before)), holdout_buckets(pa.array(before + added))
    assert np.array_equal(first, both[: len(before)])


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan"), float("inf"), True], ids=str)
def test_a_share_that_means_nothing_is_refused(share):
    with pytest.raises(Refusal, match="above 0 and at most 1"):
        holdout_bucket_bound(share)
    with pytest.raises(Refusal, match=r"tiers\.staging"):
        tier_bucket_bound(Rates(staging=share), "full")


def test_a_holdout_of_everything_is_refused():
    with pytest.raises(Refusal, match="everything"):
        holdout_bucket_bound(1.0)


def test_an_unknown_tier_and_tiers_that_are_not_nested_are_refused():
    with pytest.raises(Refusal, match=r"no such tier.*'prod'.*full"):
        tier_bucket_bound(Rates(), "prod")
    with pytest.raises(Refusal, match="hold the one before it"):
        tier_bucket_bound(Rates(development=0.5, staging=0.1), "full")


def test_a_tier_with_an_empty_side_is_refused():
    for trains, decides in ((0, 0), (1, 0), (0, 1)):
        with pytest.raises(
            Refusal,
            match=rf"the small tier: of {trains + decides} rows, {trains} are for training and {decides} for the holdout",
        ):
            refuse_empty_split({"train": trains, "holdout": decides}, "the small tier")
    refuse_empty_split({"train": 1, "holdout": 1, "unused": 0}, "the small tier")


counts = st.lists(st.tuples(st.none() | st.sampled_from(["a", "b", "it's"]), st.integers(0, 9_999), st.integers(1, 50)),
                  unique_by=lambda count: count[:2], max_size=40)  # fmt: skip


def held(counts, bounds):
    """Return for each stratum how many entities are below its bound, and how many there are."""
    found = {}
    for stratum, bucket, entities in counts:
        inside, whole = found.get(stratum, (0, 0))
        found[stratum] = inside + (entities if bucket < bounds[stratum] else 0), whole + entities
    return found


@settings(max_examples=100)
@given(counts, shares)
def test_each_stratum_keeps_its_share_and_no_bucket_more(counts, rate):
    bounds = stratum_bucket_bounds(counts, rate)
    for stratum, (inside, whole) in held(counts, bounds).items():
        last = max(bucket for value, bucket, _ in counts if value == stratum and bucket < bounds[stratum])
        without = sum(n for value, bucket, n in counts if value == stratum and bucket < last)
        assert inside >= Decimal(str(rate)) * whole > without, "at least the share, and the last bucket was needed"


@settings(max_examples=100)
@given(counts, st.tuples(shares, shares).map(sorted))
def test_stratified_tiers_hold_the_ones_before_them(counts, rates):
    small, large = (stratum_bucket_bounds(counts, rate) for rate in rates)
    assert small.keys() == large.keys()
    assert all(small[stratum] <= large[stratum] for stratum in small)


@settings(max_examples=50)
@given(counts, st.randoms())
def test_strata_are_the_same_in_whatever_order_they_are_counted(counts, random):
    shuffled = counts.copy()
    random.shuffle(shuffled)
    assert stratum_bucket_bounds(shuffled, 0.1) == stratum_bucket_bounds(counts, 0.1)


def test_a_rare_stratum_is_in_the_smallest_tier():
    assert stratum_bucket_bounds([("rare", 7_000, 1), ("many", 3, 90), ("many", 500, 90)], 0.01) == {
        "rare": 7_001,
        "many": 4,
    }


def test_a_column_of_too_many_values_is_no_stratum():
    refuse_too_many_strata("street", 200)
    with pytest.raises(Refusal, match=r"tiers\.stratify_by: 'street' has 201 values"):
        refuse_too_many_strata("street", 201)


def test_the_condition_of_a_tier_takes_each_stratum_to_its_own_bound():
    rule = TierRule(9_000, 'a"b', {"it's": 10, None: 20, "x": 9_000})
    rows = pa.table({'a"b': ["it's", "it's", None, None, "x", "y"], "_bucket": [9, 10, 19, 20, 8_999, 0]})
    kept = duckdb.sql(f"SELECT _bucket FROM rows WHERE {rule.condition()} ORDER BY 1").fetchall()
    assert rows.num_rows == 6
    assert kept == [(9,), (19,), (8_999,)]
    assert TierRule(10_000).condition() == ""
    assert TierRule(100).condition() == '"_bucket" < 100'

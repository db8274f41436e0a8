"""Buckets: computed as documented on every engine; keys that could be two entities are refused."""

import hashlib
import re

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.lake import base
from blocks.lake.layout import BUCKETS as LAKE_BUCKETS
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.buckets import BUCKET_COLUMN, BUCKETS, holdout_buckets, tier_buckets
from tests.checkout import ROOT

PAGE = (ROOT / "docs" / "buckets.md").read_text(encoding="utf-8")
VECTORS = re.findall(r"^\| `(.+?)` \| .+? \| `([0-9a-f]{32})` \| (\d+) \| (\d+) \|$", PAGE, flags=re.MULTILINE)


def by_hashlib(key: str, first: int) -> int:
    return int(hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()[first : first + 8], 16) % 10_000


@pytest.mark.parametrize(("key", "digest", "tier", "holdout"), VECTORS, ids=[v[0] for v in VECTORS])
def test_the_documented_vectors_hold(key, digest, tier, holdout):
    assert hashlib.md5(key.encode(), usedforsecurity=False).hexdigest() == digest
    assert tier_buckets(pa.array([key])).tolist() == [int(tier)] == [by_hashlib(key, 0)]
    assert holdout_buckets(pa.array([key])).tolist() == [int(holdout)] == [by_hashlib(key, 8)]


def test_the_page_has_vectors_and_its_query_gives_our_buckets():
    assert len(VECTORS) >= 10
    query = re.search(r"```sql\n(.*?)```", PAGE, flags=re.DOTALL).group(1)
    customers = pa.table({"customer_id": [v[0] for v in VECTORS]})
    with duckdb.connect() as engine:
        engine.register("customers", customers)
        rows = engine.execute(query).fetchall()
    assert rows == [(int(v[2]), int(v[3])) for v in VECTORS]


@settings(max_examples=30)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=20))
def test_any_text_has_the_bucket_of_its_utf8_bytes(keys):
    array = pa.array(keys, type=pa.string())
    assert tier_buckets(array).tolist() == [by_hashlib(key, 0) for key in keys]
    assert holdout_buckets(array).tolist() == [by_hashlib(key, 8) for key in keys]


@settings(max_examples=30)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_an_integer_has_the_bucket_of_its_digits(keys):
    assert tier_buckets(pa.array(keys, type=pa.int64())).tolist() == [by_hashlib(str(key), 0) for key in keys]


def test_order_chunks_and_encodings_change_nothing():
    keys = [f"customer {i}" for i in range(5_000)]
    whole = tier_buckets(pa.array(keys))
    assert whole.dtype == np.int32
    assert whole.tolist() == [by_hashlib(key, 0) for key in keys]
    for other in (
        pa.chunked_array([keys[:7], [], keys[7:]], type=pa.string()),
        pa.array(keys).dictionary_encode(),
        pa.array(keys, type=pa.large_string()),
    ):
        assert np.array_equal(tier_buckets(other), whole)


def test_buckets_are_spread_evenly_and_the_two_kinds_are_independent():
    keys = pa.array(np.arange(200_000))
    tier, holdout = tier_buckets(keys), holdout_buckets(keys)
    assert (tier.min(), tier.max()) == (0, BUCKETS - 1)
    assert np.mean(tier < 100) == pytest.approx(0.01, rel=0.1)
    assert np.mean(holdout[tier < 1_000] < 2_000) == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (pa.array([1.0, 2.0]), "integer or text"),
        (pa.array([True, False]), "integer or text"),
        (pa.array(["a", None]), "1 of 2 entity keys are null"),
        (pa.array([None, None]), "null"),
        (pa.array([b"a"]), "integer or text"),
    ],
    ids=["float", "bool", "null", "all null", "bytes"],
)
def test_keys_that_could_be_two_entities_are_refused(keys, said):
    with pytest.raises(Refusal, match=said):
        tier_buckets(keys)


def test_rules_and_lake_agree_on_the_column_and_the_number_of_buckets():
    assert (BUCKET_COLUMN, BUCKETS) == (base.BUCKET_COLUMN, LAKE_BUCKETS)

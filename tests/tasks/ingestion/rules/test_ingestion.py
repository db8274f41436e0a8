"""Rules of ingestion: every row of a source is accepted, or quarantined with a reason; none is lost."""

import hashlib
import json
import math
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.engines.duckdb import DuckDBEngine
from tasks.ingestion.rules.acceptance import StagedRows, partition_rows
from tasks.ingestion.rules.quarantine import FILE_COLUMN, QUARANTINE_REASONS, ROW_COLUMN
from tasks.ingestion.rules.row_checks import STAGED_TABLE, RowRules, staged_relation_sql
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.buckets import tier_buckets
from tasks.shared.rules.rows.content import table_content_digest
from tests.fixtures.calls import counted_calls

COLUMNS = ["age", "plan", "active"]


@dataclass(frozen=True)
class BrokenLine:
    position: str = "line 9"
    reason: str = "2 fields where the header has 5"
    text: str = "x,1"


def rows_of(*rows):
    """Return rows of (id, age, plan, active, left) as a table."""
    ids, ages, plans, actives, left = zip(*rows, strict=True) if rows else ([],) * 5
    return pa.table(
        {
            "left": pa.array(left, type=pa.string()),
            "age": pa.array(ages, type=pa.float64()),
            "id": pa.array(ids, type=pa.string()),
            "plan": pa.array(plans, type=pa.string()),
            "active": pa.array(actives, type=pa.int8()),
        }
    )


def good(count, start=0):
    return [(f"c{i}", float(i), "basic", 1, "No") for i in range(start, start + count)]


@dataclass(frozen=True)
class Done:
    """The accepted and the quarantined rows of a source."""

    accepted: pa.Table
    quarantined: pa.Table
    rows_in: int
    notes: dict[str, str]


def ingest(table, broken=(), existing_keys=None, most_quarantined=0.10, **changes):
    given = {"entity": "id", "target": "left", "classes": ["No", "Yes"], **changes}
    order = [given["entity"], *(c for c in COLUMNS if c not in (given["entity"], given["target"])), given["target"]]
    declared = table.select([column for column in order if column])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = pa.array(range(2, table.num_rows + 2), pa.int64())
        staged = declared.append_column(FILE_COLUMN, pa.array([0] * table.num_rows, pa.int32())).append_column(
            ROW_COLUMN, lines
        )
        tables = {STAGED_TABLE: [written(staged, folder / "staged.parquet")]}
        rest = [{"position": row.position, "reason": row.reason, "text": row.text} for row in broken]
        rows = StagedRows(
            staged_relation_sql(None, ()),
            tables,
            table.num_rows,
            ["line"],
            [written(pa.Table.from_pylist(rest), folder / "broken.parquet")] if rest else [],
            len(rest),
            [column for column in table.column_names if column not in order],
        )
        keys = [] if existing_keys is None else [written(pa.table({"id": existing_keys}), folder / "lake.parquet")]
        rules = RowRules(declared.schema, **given)
        done = partition_rows(
            DuckDBEngine(), rows, rules, folder / "work", lake_keys=keys, max_quarantined_share=most_quarantined
        )
        accepted, aside = done.accepted_rows().read_all(), done.quarantined_rows().read_all()
        return Done(accepted, aside, done.rows_in, dict(done.notes))


def written(table, path):
    pq.write_table(table, path, row_group_size=20_000)  # several threads read it
    return str(path)


def test_good_rows_come_out_in_the_declared_order_with_their_bucket():
    table = rows_of(*good(30)).append_column("note", pa.array(["x"] * 30))
    done = ingest(table)
    assert done.accepted.column_names == ["id", "age", "plan", "active", "left", "_bucket"]
    assert done.accepted["_bucket"].type == pa.int32()
    assert done.accepted["_bucket"].to_pylist() == tier_buckets(table["id"]).tolist()
    assert done.accepted.drop_columns("_bucket").equals(table.select(["id", "age", "plan", "active", "left"]))
    assert (done.rows_in, done.quarantined.num_rows) == (30, 0)
    assert done.notes == {"rows in": "30", "accepted": "30", "quarantined": "0", "columns dropped": "note"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((None, 1.0, "a", 1, "No"), "null entity key"),
        (("", 1.0, "a", 1, "No"), "null entity key"),
        (("old", 1.0, "a", 1, "No"), "key already in the lake"),
        (("x", 1.0, "a", 1, None), "null target"),
        (("x", 1.0, "a", 1, "no"), "target outside the classes: 'no'"),
        (("x", math.inf, "a", 1, "No"), "not finite: column 'age' holds inf"),
        (("x", -math.inf, "a", 1, "No"), "not finite: column 'age' holds -inf"),
        (("x", math.nan, "a", 1, "No"), "not finite: column 'age' holds nan"),
        (("c3", 3.0, "basic", 1, "No"), "duplicate key: kept is line 5, with the same values"),
        (("c3", 4.0, "basic", 1, "No"), "duplicate key: kept is line 5, with other values"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_row_is_quarantined_with_position_reason_key_and_content(row, reason):
    done = ingest(rows_of(*good(20), row), existing_keys=pa.array(["old", "older"]))
    assert done.accepted.num_rows == 20
    (entry,) = done.quarantined.to_pylist()
    assert (entry["position"], entry["reason"], entry["key"]) == ("line 22", reason, row[0])
    shown = json.loads(entry["row"])
    assert list(shown) == ["id", "age", "plan", "active", "left"]
    assert shown["left"] == row[4]
    assert done.notes["reasons"] == f"1 {reason.split(':')[0]}"


def test_of_equal_keys_the_first_good_one_is_kept():
    table = rows_of(("c5", 1.0, "a", 1, None), *good(40), ("c5", 9.0, "b", 0, "Yes"))
    done = ingest(table)
    assert done.accepted.filter(pa.compute.equal(done.accepted["id"], "c5"))["age"].to_pylist() == [5.0]
    assert done.quarantined["reason"].to_pylist() == [
        "null target",
        "duplicate key: kept is line 8, with other values",
    ]


def test_nulls_in_features_are_the_expectations_business():
    done = ingest(rows_of(*good(5), ("x", None, None, None, "Yes")))
    assert (done.accepted.num_rows, done.quarantined.num_rows) == (6, 0)


def test_rows_that_the_source_could_not_read_count_as_quarantined():
    done = ingest(rows_of(*good(20)), broken=[BrokenLine()])
    assert done.rows_in == 21
    (entry,) = done.quarantined.to_pylist()
    assert (entry["position"], entry["reason"], entry["key"]) == ("line 9", BrokenLine.reason, None)
    assert json.loads(entry["row"]) == {"text": "x,1"}


def test_rows_to_be_scored_need_no_target():
    done = ingest(rows_of(*good(3)), target=None, classes=None)
    assert done.accepted.column_names == ["id", "age", "plan", "active", "_bucket"]


def test_integer_keys_and_numeric_classes_work():
    table = rows_of(*good(12))
    table = table.set_column(2, "id", pa.array(range(12))).set_column(0, "left", pa.array([0.0, 1.0, 2.0] * 4))
    done = ingest(table, classes=[0, 1], existing_keys=pa.array(["3"]), most_quarantined=0.5)
    assert (
        sorted(done.quarantined["reason"].to_pylist())
        == ["key already in the lake"] + ["target outside the classes: 2.0"] * 4
    )


def test_more_than_a_tenth_quarantined_is_refused_with_examples():
    with pytest.raises(Refusal, match=r"2 of 12 rows .*2 null target.*more than 10%.*line 12: null target"):
        ingest(rows_of(*good(10), *[(f"x{i}", 1.0, "a", 1, None) for i in range(2)]))
    at_the_limit = ingest(rows_of(*good(9), ("x", 1.0, "a", 1, None)))
    assert at_the_limit.quarantined.num_rows == 1


@pytest.mark.parametrize(
    ("table", "changes", "said"),
    [
        (rows_of(), {}, "the source has no rows"),
        (
            rows_of((None, 1.0, "a", 1, "No")),
            {"most_quarantined": 1.0},
            r"^the only row would be quarantined \(1 null entity key\)\.",
        ),
        (rows_of(*good(2)), {"broken": [BrokenLine()]}, "1 of 3 rows .*1 unreadable"),
        (rows_of(*good(2)), {"entity": "age"}, "integer or text"),
        (rows_of(*good(2)), {"most_quarantined": math.nan}, "must be from 0 to 1"),
    ],
    ids=["empty", "nothing left", "broken", "float key", "nan share"],
)
def test_a_source_that_cannot_be_used_is_refused(table, changes, said):
    with pytest.raises(Refusal, match=said):
        ingest(table, **changes)


values = st.tuples(
    st.sampled_from([None, "", "a", "b", "c", "d", "e"]),
    st.sampled_from([None, 1.0, math.inf, math.nan]),
    st.sampled_from([None, "basic"]),
    st.sampled_from([None, 0, 1]),
    st.sampled_from([None, "No", "Yes", "Maybe"]),
)


@pytest.mark.slow
@settings(max_examples=40)
@given(st.lists(values, max_size=25), st.lists(st.sampled_from("abc")), st.integers(0, 3))
def test_rows_in_are_rows_accepted_and_rows_quarantined(rows, existing, broken):
    table = rows_of(*rows, ("only one", 1.0, "a", 1, "No"))
    keys = pa.array(existing, type=pa.string())
    done = ingest(table, existing_keys=keys, broken=[BrokenLine()] * broken, most_quarantined=1.0)
    accepted = done.accepted["id"].to_pylist()
    assert done.rows_in == len(rows) + 1 + broken == len(accepted) + done.quarantined.num_rows
    assert len(set(accepted)) == len(accepted)
    assert not set(accepted) & {None, "", *existing}
    assert set(done.accepted["left"].to_pylist()) <= {"No", "Yes"}
    known = {*QUARANTINE_REASONS, BrokenLine.reason}
    assert {reason.split(":")[0] for reason in done.quarantined["reason"].to_pylist()} <= known


@settings(max_examples=60)
@given(st.lists(values, max_size=20), st.lists(st.integers(0, 20), max_size=4))
def test_a_content_key_does_not_depend_on_how_a_table_is_cut(rows, cuts):
    table = rows_of(*rows)
    ends = sorted({0, table.num_rows, *(min(cut, table.num_rows) for cut in cuts)})
    pieces = [table.slice(a, b - a) for a, b in pairwise(ends)]
    cut = pa.concat_tables(pieces) if pieces else table
    assert table_content_digest(cut) == table_content_digest(table) == table_content_digest(table.combine_chunks())


def test_a_content_key_does_not_depend_on_what_lies_under_a_null():
    hidden = pa.compute.if_else(pa.array([True, False]), pa.array([1.0, 5.0]), None)
    assert table_content_digest(pa.table({"a": hidden})) == table_content_digest(pa.table({"a": pa.array([1.0, None])}))


def test_every_change_changes_the_content_key():
    tables = [
        pa.table({"a": ["x", "yz"]}),
        pa.table({"a": ["xy", "z"]}),
        pa.table({"b": ["x", "yz"]}),
        pa.table({"a": ["x", None]}),
        pa.table({"a": ["x", ""]}),
        pa.table({"a": ["x"]}),
        pa.table({"a": ["x", "yz"], "b": [1, 2]}),
        pa.table({"a": [1, 2]}),
        pa.table({"a": [1.0, 2.0]}),
        pa.table({"a": [2, 1]}),
        pa.table({"a": pa.array([1, 2], type=pa.int8())}),
        pa.table({"a": [True, False]}),
        pa.table({"a": pa.array([1, 2], type=pa.timestamp("us", "UTC"))}),
    ]
    keys = [table_content_digest(table) for table in tables]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == len(hashlib.sha256().hexdigest()) for key in keys)


def test_a_column_without_a_digest_is_refused():
    with pytest.raises(Refusal, match=r"column 'a'.*list"):
        table_content_digest(pa.table({"a": [[1], [2]]}))


@pytest.mark.slow
def test_a_million_rows_are_judged_without_a_step_for_each():
    count = 1_000_000
    ids = pa.array(np.random.default_rng(7).permutation(count).astype(str))
    table = rows_of(*good(1)).slice(0, 0)
    columns = {"left": ["No"] * count, "age": np.ones(count), "id": ids, "plan": ["a"] * count}
    table = pa.table({**columns, "active": np.ones(count, dtype=np.int8)}, schema=table.schema)
    done, calls = counted_calls(lambda: ingest(table, existing_keys=ids[:9]))
    assert calls < count / 2
    assert done.accepted["id"].to_pylist() == ids[9:].to_pylist(), "a join would change the order"

"""Labels meet the predictions of their own rows: by entity, by entity and time, or by request id; else they are counted."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.engines.duckdb import DuckDBEngine
from tasks.monitoring.rules.labels import LabelPairs, label_pairs_sql, read_label_pairs
from tasks.monitoring.rules.quality import unidentified_rows_note, unmeasurable_reason
from tasks.shared.rules.model.spec import ModelSpec, parse_spec
from tests.fixtures.spec_cases import GOOD

ONCE = parse_spec(GOOD, "model.yaml")
TIMED = parse_spec(GOOD.replace("  target:", "  time: sold_at\n  target:"), "model.yaml")
NAMED = parse_spec(GOOD.replace("  target:", "  time: sold_at\n  request_id: ticket\n  target:"), "model.yaml")
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
MOMENT = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class Logged:
    """A logged prediction."""

    value: float
    entity: str | None = "h1"
    day: int | None = None
    request: str = "r"
    row: int = 0
    hour: int = 0


@dataclass(frozen=True)
class Label:
    """A labelled row."""

    value: float
    entity: str = "h1"
    day: int = 0
    ticket: str | None = None


def moment(day: int | None) -> datetime | None:
    return None if day is None else NOON + timedelta(days=day)


def pairs(
    spec: ModelSpec, logged: Sequence[Logged], labels: Sequence[Label], seen: Sequence[Label] = (), lacks: str = ""
) -> LabelPairs:
    """Join as monitoring does. `lacks` is a column that the log does not have."""
    log = {
        "house_id": pa.array([each.entity for each in logged], pa.string()),
        "sold_at": pa.array([moment(each.day) for each in logged], MOMENT),
        "_request_id": pa.array([each.request for each in logged], pa.string()),
        "_row": pa.array([each.row for each in logged], pa.int32()),
        "_requested_at": pa.array([NOON + timedelta(hours=each.hour) for each in logged], MOMENT),
        "_prediction": pa.array([each.value for each in logged], pa.float64()),
    }
    tables = {"rows": pa.table({name: values for name, values in log.items() if name != lacks})}
    for name, rows in (("labels", labels), ("seen", seen)):
        tables[name] = pa.table({
            "house_id": pa.array([each.entity for each in rows], pa.string()),
            "sold_at": pa.array([moment(each.day) for each in rows], MOMENT),
            "ticket": pa.array([each.ticket for each in rows], pa.string()),
            "price": pa.array([each.value for each in rows], pa.float64()),
        })  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name, table in tables.items():
            pq.write_table(table, f"{folder}/{name}.parquet")
        query = label_pairs_sql(spec, "rows", tables["rows"].column_names, tables["labels"].column_names)
        files = {name: (str(Path(folder) / f"{name}.parquet"),) for name in tables}
        return read_label_pairs(spec, DuckDBEngine().query(query, files))


def found(joined: LabelPairs) -> list[tuple[float, float]]:
    """Return the pairs as (prediction, label)."""
    return sorted((row["_prediction"], row["_truth"]) for row in joined.rows.to_pylist())


@pytest.mark.parametrize("spec", [ONCE, TIMED], ids=["once", "timed"])
def test_a_label_of_a_snapshot_of_an_earlier_release_has_its_key_in_the_old_form(spec: ModelSpec) -> None:
    logged = [Logged(1, "1000", day=0), Logged(2, "1001", day=0), Logged(3, "a.0", day=0)]
    labels = [Label(10, "1000.0"), Label(20, "1001.00"), Label(30, "a.0")]
    assert found(pairs(spec, logged, labels)) == [(1, 10), (2, 20), (3, 30)]
    assert found(pairs(spec, logged, labels, seen=[Label(10, "1000.0"), Label(20, "1001")])) == [(3, 30)]


def test_an_entity_s_newest_prediction_meets_its_label_unless_the_version_was_trained_on_it() -> None:
    logged = [Logged(1, "h1", hour=1), Logged(2, "h1", hour=5), Logged(3, "h2"), Logged(4, "h3")]
    joined = pairs(ONCE, logged, [Label(10, "h1"), Label(20, "h2"), Label(30, "h4")], seen=[Label(20, "h2")])
    assert found(joined) == [(2, 10)]
    assert joined.counts == {"logged": 4, "paired": 1}


def test_two_predictions_of_one_key_at_one_time_are_not_mixed() -> None:
    classes = parse_spec(GOOD, "model.yaml")
    for order in (1, -1):
        logged = [Logged(1, row=0), Logged(2, row=1), Logged(3, row=2)][::order]
        assert found(pairs(classes, logged, [Label(10)])) == [(3, 10)], "the last row of the request"


def test_with_a_time_every_row_of_an_entity_meets_its_own_label() -> None:
    logged = [Logged(1, day=1), Logged(2, day=2), Logged(3, day=3), Logged(22, day=2, hour=2)]
    labels = [Label(30, day=3), Label(10, day=1), Label(20, day=2), Label(40, day=4)]
    assert found(pairs(TIMED, logged, labels)) == [(1, 10), (3, 30), (22, 20)]


def test_rows_that_trained_are_left_out_by_their_own_time() -> None:
    logged = [Logged(1, day=1), Logged(2, day=2)]
    joined = pairs(TIMED, logged, [Label(10, day=1), Label(20, day=2)], seen=[Label(10, day=1)])
    assert found(joined) == [(2, 20)]


def test_the_label_of_another_row_of_the_entity_is_none() -> None:
    joined = pairs(TIMED, [Logged(1, day=1)], [Label(20, day=2), Label(30, day=3)])
    assert found(joined) == [] and joined.counts == {"logged": 1}


@pytest.mark.parametrize("lacks", ["", "sold_at"], ids=["the time is null", "an old log without the column"])
def test_without_a_time_an_entity_of_several_rows_is_not_identified(lacks: str) -> None:
    joined = pairs(
        TIMED, [Logged(1), Logged(2, "h2")], [Label(10, day=1), Label(20, day=2), Label(5, "h2")], lacks=lacks
    )
    assert found(joined) == [] and joined.counts == {"logged": 2, "without time": 2}
    assert unmeasurable_reason(TIMED, joined) == (
        "no label can be paired with 2 of 2 logged predictions: 2 because they carry no sold_at, and house_id alone "
        "does not identify a row"
    )


def test_without_a_time_an_entity_identifies_a_row_where_every_entity_has_one() -> None:
    labels = [Label(10, "h1", day=5), Label(20, "h2", day=7)]
    joined = pairs(TIMED, [Logged(1, "h1"), Logged(2, "h2"), Logged(3, "h2"), Logged(4, "h4")], labels)
    assert found(joined) == [(1, 10)], "h2 was predicted twice, and nobody knows which prediction is the row's"
    assert joined.counts == {"logged": 4, "paired": 1, "without time": 2}
    assert unmeasurable_reason(TIMED, joined) == ""
    assert "2 of 4 logged predictions" in unidentified_rows_note(TIMED, joined)


def test_a_key_with_several_labels_is_counted_and_not_paired() -> None:
    joined = pairs(ONCE, [Logged(1), Logged(2, "h2")], [Label(10), Label(11, day=1), Label(20, "h2")])
    assert found(joined) == [(2, 20)]
    assert joined.counts["ambiguous"] == 1
    assert "1 of 2 logged predictions: 1 because several rows have their house_id" in unidentified_rows_note(
        ONCE, joined
    )


@pytest.mark.parametrize("lacks", ["", "house_id"])
def test_a_prediction_without_an_entity_is_counted(lacks: str) -> None:
    joined = pairs(ONCE, [Logged(1, None), Logged(2, None)], [Label(10)], lacks=lacks)
    assert joined.counts == {"logged": 2, "without entity": 2}
    assert "2 because they carry no house_id" in unmeasurable_reason(ONCE, joined)
    hidden = ONCE.model_copy(update={"inference_log": ONCE.inference_log.model_copy(update={"exclude": ("house_id",)})})
    assert "2 because house_id is excluded from the log" in unmeasurable_reason(hidden, joined)


def test_a_label_with_a_request_id_meets_that_request() -> None:
    logged = [Logged(1, None, request="a"), Logged(2, None, request="b"), Logged(3, "h3", day=3, request="c")]
    labels = [Label(20, "h2", ticket="b"), Label(10, "h1", ticket="a"), Label(30, "h3", day=3)]
    assert found(pairs(NAMED, logged, labels)) == [(1, 10), (2, 20), (3, 30)]
    assert found(pairs(TIMED, logged, labels)) == [(3, 30)], "nobody declared the column of ids"


def test_a_request_of_several_rows_needs_the_key_as_well() -> None:
    logged = [Logged(1, "h1", request="a"), Logged(2, "h2", request="a", row=1)]
    labels = [Label(20, "h2", day=2, ticket="a"), Label(10, "h1", day=1, ticket="a"), Label(9, "h1", day=9)]
    assert found(pairs(NAMED, logged, labels)) == [(1, 10), (2, 20)]
    nameless = [replace(each, entity=None) for each in logged]
    assert pairs(NAMED, nameless, labels).counts == {"logged": 2, "without entity": 2}
    assert pairs(NAMED, nameless, labels[:1]).counts == {"logged": 2, "without entity": 2}, (
        "though one label has not arrived"
    )


def test_a_request_id_that_stands_for_another_row_is_no_pair() -> None:
    assert found(pairs(NAMED, [Logged(1, "h1", day=1, request="a")], [Label(20, "h1", day=2, ticket="a")])) == []
    twice = [Logged(1, None, request="a"), Logged(2, None, request="a", hour=1)]
    assert found(pairs(NAMED, twice, [Label(10, ticket="a")])) == []
    joined = pairs(
        NAMED, [Logged(1, "h1", request="x"), Logged(2, "h2", day=2, request="x")], [Label(10, "h1", day=1, ticket="x")]
    )
    assert found(joined) == [(1, 10)] and joined.counts == {"logged": 2, "paired": 1}, "every prediction is counted"


def test_a_label_is_used_once_though_its_row_was_predicted_again() -> None:
    logged = [Logged(1, day=1, request="a"), Logged(2, day=1, request="b", hour=1)]
    joined = pairs(NAMED, logged, [Label(10, day=1, ticket="a")])
    assert found(joined) == [(1, 10)] and joined.counts == {"logged": 2, "paired": 1}


def test_a_row_of_training_is_left_out_by_request_id_too() -> None:
    label = Label(10, day=1, ticket="a")
    assert pairs(NAMED, [Logged(1, None, request="a")], [label], seen=[label]).counts == {"logged": 1}


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8, unique=True)


@settings(deadline=None, max_examples=60)
@given(rows=ROWS, data=st.data())
def test_permuted_repeated_and_missing_rows_never_meet_another_rows_label(
    rows: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Predictions and labels hold the number of their row: a pair of two numbers is a wrong pair."""
    spec = data.draw(st.sampled_from([TIMED, NAMED]))
    labels = [
        Label(number, f"h{entity}", day, data.draw(st.sampled_from([None, f"t{number}"])))
        for number, (entity, day) in enumerate(rows)
        if data.draw(st.booleans())
    ]
    several = len({each.entity for each in labels}) < len(labels)
    logged = []
    for asked, number in enumerate(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=12))):
        entity, day = rows[number]
        # Where each entity happens to have one labelled row, a prediction without a time is paired by the entity.
        timeless = several and data.draw(st.booleans())
        request = data.draw(st.sampled_from([f"t{number}", "shared", f"other {asked}"]))
        who = data.draw(st.sampled_from([f"h{entity}", None]))
        logged.append(Logged(number, who, None if timeless else day, request, asked, data.draw(st.integers(0, 2))))
    joined = pairs(spec, data.draw(st.permutations(logged)), data.draw(st.permutations(labels)))
    assert [pair for pair in found(joined) if pair[0] != pair[1]] == []
    assert len({truth for _, truth in found(joined)}) == joined.counts.get("paired", 0), "a label is used once"


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 5), max_size=10), st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)), st.randoms())
def test_one_row_entities_meet_their_own_label_or_none(
    asked: list[int], labelled: set[int], trained: set[int], random
) -> None:
    logged = [Logged(number, f"h{number}", request=f"r{at}", hour=at % 3) for at, number in enumerate(asked)]
    labels = [Label(number, f"h{number}") for number in labelled]
    random.shuffle(labels)
    joined = pairs(ONCE, logged, labels, seen=[Label(number, f"h{number}") for number in trained])
    assert found(joined) == [(number, number) for number in sorted((set(asked) & labelled) - trained)]

"""The canonical form of values: the same from every way in, or a refusal that names the column (docs/values.md)."""

import csv
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.common.errors import Rejected
from blocks.engines.duckdb import DuckDBEngine
from blocks.sources import FrameSource, Source
from blocks.sources.base import number_range
from blocks.sources.columns import ARROW_TYPES, convert_column
from blocks.sources.frames import batch_from_columns, column_from_values
from blocks.sources.staging import stage_rows
from runtime.columns import BadInput, Column
from runtime.payload import parse_request
from runtime.signatures import RowKey
from runtime.values import NoCanonicalForm, canonical, is_missing
from tasks.ingestion.rules.row_checks import staged_relation_sql
from tests.fixtures.sources import open_source

REFUSED = "refused"
"""The outcome of a way in that names the column and takes no value."""

TYPE_NAMES = {"number": "double", "flag": "long", "category": "string"}


def of_source(source: Source, kind: str) -> Any:
    """Return the value of the only row, or REFUSED if the row is set aside or the column refused, by its name."""
    try:
        table = source.read_table()
    except Rejected as error:
        assert "'c'" in str(error) or "line 2: a NUL byte" in str(error)
        return REFUSED
    if table.unreadable_rows:
        assert "column 'c' holds" in table.unreadable_rows[0].reason
        return REFUSED
    return table.table["c"][0].as_py()


def by_csv(value: Any, type_: pa.DataType | None, kind: str, folder: Path) -> Any:
    (folder / "x.csv").write_text(csv_text(value))
    return of_source(open_source(str(folder / "x.csv"), kinds={"i": "text", "c": kind}), kind)


def by_json(value: Any, type_: pa.DataType | None, kind: str, folder: Path) -> Any:
    (folder / "x.jsonl").write_text(json.dumps({"i": 1, "c": json_value(value)}) + "\n")
    return of_source(open_source(str(folder / "x.jsonl"), kinds={"i": "text", "c": kind}), kind)


def by_parquet(value: Any, type_: pa.DataType | None, kind: str, folder: Path) -> Any:
    pq.write_table(pa.table({"c": pa.array([value], type_)}), folder / "x.parquet")
    try:
        staged = stage_rows(open_source(str(folder / "x.parquet"), kinds={"c": kind}), folder)
    except Rejected as error:
        assert "'c'" in str(error)
        return REFUSED
    if staged.unreadable_row_count:
        return REFUSED
    files = [str(file) for file in staged.files]
    sql = staged_relation_sql(staged.column_sql, files)
    return DuckDBEngine().query(f"SELECT * FROM ({sql}) r", {"staged": files})["c"][0].as_py()


def by_frame(value: Any, type_: pa.DataType | None, kind: str, folder: Path) -> Any:
    plain = type_ is None or isinstance(value, UUID)  # which Arrow makes bytes
    series = pd.Series([value], dtype=object) if plain else pa.array([value], type_).to_pandas()
    return of_source(FrameSource(pd.DataFrame({"c": series}), {"c": kind}), kind)


def by_mixed_frame(value: Any, type_: pa.DataType | None, kind: str, folder: Path) -> Any:
    """A column of Python objects of several types, whose other value is missing or of another type."""
    source = FrameSource(pd.DataFrame({"c": pd.Series([value, object()], dtype=object)}), {"c": kind})
    (batch,) = source.batches()
    return batch.table["c"][0].as_py() if batch.table.num_rows else REFUSED


def by_sql(value: Any, type_: pa.DataType | None, kind: str, folder: Path) -> Any:
    try:
        batch = batch_from_columns({"c": column_from_values([value], kind)}, number_range(1, 1), {"c": kind})
    except Rejected as error:
        assert "'c'" in str(error) or "Unicode" in str(error)
        return REFUSED
    return batch.table["c"][0].as_py() if batch.table.num_rows else REFUSED


def by_request(value: Any, type_: pa.DataType | None, kind: str, folder: Path) -> Any:
    body = json.dumps({"dataframe_records": [{"i": "x", "c": json_value(value)}]})
    return of_request(body, "application/json", kind)


def by_csv_request(value: Any, type_: pa.DataType | None, kind: str, folder: Path) -> Any:
    return of_request(csv_text(value), "text/csv", kind)


def of_request(body: str, content_type: str, kind: str) -> Any:
    if kind == "time":
        return canonical(json.loads(body)["dataframe_records"][0]["c"], "time") if body[0] == "{" else ...
    columns = [Column("i", "string"), *([] if kind == "key" else [Column("c", TYPE_NAMES[kind], False, kind)])]
    try:
        payload = parse_request(
            body.encode(errors="surrogatepass"), content_type, columns, RowKey("c" if kind == "key" else "")
        )
    except BadInput as error:
        missing = kind == "flag" and "missing" in str(error)  # a column of whole numbers cannot be null
        assert "column 'c'" in str(error) or "not UTF-8" in str(error) or "NUL" in str(error)
        return None if missing else REFUSED
    value = payload.sent_values["c"][0] if kind == "key" else payload.frame["c"].tolist()[0]
    return None if isinstance(value, float) and np.isnan(value) else value


def csv_text(value: Any) -> str:
    stream = io.StringIO()
    cell = "" if is_missing(value) else value
    csv.writer(stream, lineterminator="\n").writerows([["i", "c"], [1, cell]])
    return stream.getvalue()


def json_value(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, np.generic):
        return value.item()
    plain = value is None or isinstance(value, str | bool | int | float | list | dict)
    return value if plain else value.isoformat() if isinstance(value, date | time) else str(value)


WAYS: dict[str, Callable[[Any, pa.DataType | None, str, Path], Any]] = {
    "CSV": by_csv,
    "JSON lines": by_json,
    "Parquet": by_parquet,
    "DataFrame": by_frame,
    "mixed DataFrame": by_mixed_frame,
    "SQL": by_sql,
    "request": by_request,
    "CSV request": by_csv_request,
}

TEXT_WAYS = {"CSV", "JSON lines", "request", "CSV request"}
CSVS = {"CSV", "CSV request"}


@dataclass(frozen=True)
class Case:
    """A value of a kind with its canonical form.

    `refusing` are the ways that refuse it by name. `text` are those that carry a text instead of the value, whose form
    is `text_form`; `...` if it depends on who writes the text.
    """

    kind: str
    value: Any
    form: Any
    type: pa.DataType | None = None
    refusing: frozenset[str] = frozenset()
    text: frozenset[str] = frozenset()
    text_form: Any = None


def case(
    kind: str, value: Any, form: Any, type_: pa.DataType | None = None,
    refusing: Iterable[str] = (), text: Iterable[str] = (), text_form: Any = None,
) -> Case:  # fmt: skip
    return Case(kind, value, form, type_, frozenset(refusing), frozenset(text), text_form)


UTC_2026 = datetime(2026, 1, 31, 8, 0, 0, 123456, tzinfo=UTC)
WHOLE_TYPES = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint64(), pa.float32(), pa.float64()]

LABELS = [
    *[case(kind, 7, "7", type_) for kind in ("key", "category") for type_ in WHOLE_TYPES],
    *[
        each
        for kind in ("key", "category")
        for each in (
            case(kind, 1000.0, "1000"),
            case(kind, -0.0, "0"),
            case(kind, 1.5, "1.5"),
            case(kind, 2**63 + 5, str(2**63 + 5), pa.uint64()),
            case(kind, 2**53 + 1, str(2**53 + 1), pa.int64()),
            case(kind, Decimal("1000.0000000000"), "1000", pa.decimal128(38, 10)),
            case(kind, Decimal("1000.0000000000"), "1000", pa.decimal256(50, 10)),
            case(kind, Decimal("1E+3"), "1000", pa.decimal128(20, 0), text=CSVS, text_form=...),
            case(kind, Decimal("1.50"), REFUSED, pa.decimal128(5, 2), text=TEXT_WAYS, text_form=...),
            case(kind, "1.50", "1.50"),
            case(kind, "plain", "plain"),
            case(kind, "plain", "plain", pa.large_string()),
            case(kind, "plain", "plain", pa.string_view()),
            case(kind, "plain", "plain", pa.dictionary(pa.int32(), pa.string())),
            case(kind, " a ", " a "),
            case(kind, "", None),
            case(kind, " \t", None),
            case(kind, "\u00a0", None),
            case(kind, None, None, pa.null()),
            case(kind, None, None, pa.string()),
            case(kind, float("nan"), None, pa.float64(), refusing={"JSON lines", "request"}),
            case(kind, "a\0b", REFUSED),
            case(kind, "Zoe\u0308", "Zoe\u0308"),
            case(kind, "Zo\u00eb", "Zo\u00eb"),
            *[
                case(kind, word, word)
                for word in ("NaN", "nan", "NA", "None", "null", "0042", "1e3", "1_000", "１２", "1.10")
            ],
            case(kind, "1000.0", "1000"),
            case(kind, "-5.00", "-5"),
            case(kind, "0042.0", "0042.0"),
            case(kind, UUID(int=1), "00000000-0000-0000-0000-000000000001", pa.uuid()),
            case(kind, date(2026, 1, 31), "2026-01-31", pa.date32()),
            case(kind, float("inf"), REFUSED, pa.float64(), text=CSVS, text_form="inf"),
        )
    ],
    case("key", 1e300, REFUSED, pa.float64()),
    case("key", float(2**53), REFUSED, pa.float64(), text=CSVS, text_form=str(2**53)),
    case("key", "1.23457E+11", REFUSED),
    case("key", "1.0E16", REFUSED),
    case("key", "1e5", "1e5"),
    case("key", True, REFUSED, pa.bool_(), text=CSVS, text_form="True"),
    case("category", "1.23457E+11", "1.23457E+11"),
    case("category", True, "True", pa.bool_()),
    case("category", False, "False", pa.bool_()),
    *[case("category", word, word.capitalize()) for word in ("true", "True", "TRUE", "false", "False", "FALSE")],
    case("category", "yes", "yes"),
]

NUMBERS = [
    *[case("number", 7, 7.0, type_) for type_ in WHOLE_TYPES],
    case("number", 0.1, 0.1),
    case("number", -0.0, 0.0),
    case("number", 1e300, 1e300),
    case("number", 0.5, 0.5, pa.float32()),
    case("number", 0.5, 0.5, pa.float16()),
    case("number", 2**53 + 1, float(2**53), pa.int64()),
    case("number", 2**64 - 1, float(2**64), pa.uint64()),
    case("number", Decimal("0.10"), 0.1, pa.decimal128(5, 2)),
    case("number", Decimal("123456789012345678901234.5678"), 123456789012345678901234.5678, pa.decimal128(38, 4)),
    case("number", float("nan"), None, pa.float64(), refusing={"JSON lines", "request"}),
    case("number", None, None, pa.float64()),
    *[case("number", text, 5.0) for text in ("5", " 5 ", "+5", "5.0", "5e0", "5.", "\u00a05")],
    case("number", "", None),
    case("number", "  ", None),
    *[
        case("number", text, REFUSED)
        for text in ("NaN", "nan", "NA", "null", "inf", "1_000", "1,000", "１２", "0x10", "5 6")
    ],
    case("number", True, REFUSED, pa.bool_()),
    case("number", "true", REFUSED),
    case("number", date(2026, 1, 31), REFUSED, pa.date32()),
    case("number", timedelta(seconds=5), REFUSED, pa.duration("us")),
    case("number", UUID(int=1), REFUSED, pa.uuid()),
]

FLAGS = [
    *[case("flag", value, value, type_) for value in (0, 1) for type_ in WHOLE_TYPES],
    case("flag", True, 1, pa.bool_()),
    case("flag", False, 0, pa.bool_()),
    case("flag", Decimal("1.00"), 1, pa.decimal128(5, 2)),
    *[case("flag", text, 1) for text in ("1", "true", "True", "TRUE", " true ", "1.0", "1.00", "1e0")],
    *[case("flag", text, 0) for text in ("0", "false", "False", "0.0", "-0.0")],
    *[case("flag", value, REFUSED) for value in (2, -1, 0.5, "yes", "t", "on", "１")],
    case("flag", "", None),
    case("flag", None, None, pa.bool_()),
]

TIMES = [
    case("time", UTC_2026, UTC_2026, pa.timestamp("us", "UTC")),
    case("time", UTC_2026, UTC_2026, pa.timestamp("ns", "UTC")),
    case("time", UTC_2026.astimezone(timezone(timedelta(hours=5, minutes=30))), UTC_2026, pa.timestamp("us", "+05:30")),
    case("time", UTC_2026.replace(microsecond=0), UTC_2026.replace(microsecond=0), pa.timestamp("s", "Europe/Berlin")),
    case("time", datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC), pa.timestamp("us", "UTC")),
    case("time", "2026-01-31T08:00:00.123456000Z", UTC_2026),
    case("time", "2026-01-31 10:00:00.123456+02:00", UTC_2026),
    case("time", " 2026-01-31T08:00:00.123456Z ", UTC_2026),
    *[
        case("time", text, REFUSED)
        for text in (
            "2026-01-31T08:00:00.1234567Z", "2026-01-31T08:00:00", "2026-01-31", "23:59:59", "2026-02-30T00:00:00Z",
            "2026-01-31T24:00:00Z", "2016-12-31T23:59:60Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59-01:00",
            "0001-01-01T00:00:00+01:00", "10000-01-01T00:00:00Z", "2026-01-31T08:00:00+25:00", "1767225600", "now",
            "２026-01-31T08:00:00Z",
        )
    ],
    case("time", datetime(2026, 1, 31), REFUSED, pa.timestamp("us")),
    case("time", date(2026, 1, 31), REFUSED, pa.date32()),
    case("time", time(8, 0), REFUSED, pa.time64("us")),
    case("time", 1767225600, REFUSED, pa.int64()),
    case("time", None, None, pa.timestamp("us", "UTC")),
    case("time", "", None),
]  # fmt: skip

NESTED = [
    case(kind, value, REFUSED, type_, text=CSVS if isinstance(value, list | dict) else TEXT_WAYS, text_form=...)
    for kind in ("key", "category", "number", "flag", "time")
    for value, type_ in (
        ([1], pa.list_(pa.int64())), ({"a": 1}, pa.struct([("a", pa.int64())])), (b"\x01" * 16, pa.binary(16)),
        (b"abc", pa.binary()), (time(8, 0), pa.time64("us")),
    )
]  # fmt: skip


def case_id(each: Case) -> str:
    return ascii(f"{each.kind} {each.value!r} {each.type or ''}")


@pytest.mark.parametrize("each", [*LABELS, *NUMBERS, *FLAGS, *TIMES, *NESTED], ids=case_id)
def test_a_value_has_one_form_whatever_way_it_comes(each: Case, tmp_path: Path) -> None:
    found = {}
    for name, way in WAYS.items():
        try:
            found[name] = way(each.value, each.type, each.kind, tmp_path)
        except NoCanonicalForm:
            found[name] = REFUSED
        except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError, TypeError):
            if each.form is not REFUSED:
                raise
            found[name] = REFUSED  # this way cannot even carry the value
    expected = dict.fromkeys(WAYS, each.form) | dict.fromkeys(each.refusing, REFUSED)
    expected |= dict.fromkeys(each.text, each.text_form)
    skipped = {name for name, value in expected.items() if value is ... or found[name] is ...}
    assert {k: v for k, v in found.items() if k not in skipped} == {
        k: v for k, v in expected.items() if k not in skipped
    }


@pytest.mark.parametrize("kind", ["key", "category", "number", "integer", "flag", "time"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_columns_of_arrow_follow_the_rule_of_single_values(kind: str, data: st.DataObject) -> None:
    plain = st.text("0123456789.eE+-_ TtrueFalsZ:\u0660\uff11\u00a0a\0", max_size=8)
    clock = st.from_regex(
        r"(20[0-9]{2}|000[01]|9999)-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{1,8})?(Z|[+-][0-2][0-9]:[0-6][0-9]|)",
        fullmatch=True,
    )
    texts = data.draw(st.lists(st.none() | plain | clock, max_size=6))
    values, bad = convert_column(pa.chunked_array([pa.array(texts, pa.string())]), kind, "c")
    assert outcomes(texts, kind) == [REFUSED if b else v for v, b in zip(values.to_pylist(), bad, strict=True)]


@pytest.mark.parametrize("kind", ["key", "category", "number", "integer", "flag"])
@pytest.mark.parametrize("type_", [pa.float64(), pa.float32(), pa.int64(), pa.bool_(), pa.decimal128(20, 3)], ids=str)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_typed_columns_follow_the_rule_of_single_values(kind: str, type_: pa.DataType, data: st.DataObject) -> None:
    whole = st.integers(-(2**55), 2**55)
    values = {
        pa.float64(): st.floats() | whole.map(float),
        pa.float32(): st.floats(width=32),
        pa.int64(): whole,
        pa.bool_(): st.booleans(),
        pa.decimal128(20, 3): st.decimals(-(10**15), 10**15, places=3),
    }[type_]
    listed = data.draw(st.lists(st.none() | values, min_size=1, max_size=6))
    column = pa.chunked_array([pa.array(listed, type_)])
    singles = [None if v is None else np.float32(v) for v in listed] if type_ == pa.float32() else listed
    try:
        found, bad = convert_column(column, kind, "c")
    except Rejected:
        assert set(outcomes(singles, kind)) <= {REFUSED, None}
        return
    assert found.type == ARROW_TYPES[kind]
    assert outcomes(singles, kind) == [REFUSED if b else v for v, b in zip(found.to_pylist(), bad, strict=True)]


def outcomes(values: list[Any], kind: str) -> list[Any]:
    found = []
    for value in values:
        try:
            found.append(canonical(value, kind))
        except NoCanonicalForm:
            found.append(REFUSED)
    return found


@pytest.mark.parametrize(
    ("unit", "count"),
    [("s", 253402300800), ("ms", -62135596800001), ("us", 253402300800000000), ("ns", 1), ("s", 2**62)],
)
def test_times_that_have_no_form_are_set_aside_and_their_neighbours_stay(unit: str, count: int, tmp_path: Path) -> None:
    column = pa.array([0, count, None], pa.timestamp(unit, "UTC"))
    frame = pd.DataFrame({"c": pd.Series(column, dtype=pd.ArrowDtype(column.type))})
    (batch,) = FrameSource(frame, {"c": "time"}).batches()
    assert batch.table["c"].to_pylist() == [datetime(1970, 1, 1, tzinfo=UTC), None]
    assert [row.position for row in batch.unreadable_rows] == ["row 2"]
    if unit != "s":  # Parquet does not have it
        pq.write_table(pa.table({"c": column}), tmp_path / "x.parquet")
        source = open_source(str(tmp_path / "x.parquet"), kinds={"c": "time"})
        assert source.direct_scan() is None
        assert source.read_table().table["c"].to_pylist() == [datetime(1970, 1, 1, tzinfo=UTC), None]

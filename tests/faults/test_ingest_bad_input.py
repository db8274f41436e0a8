"""Bad input, data cases 25 to 60: each is a named error with its place, or rows in quarantine with their reason.

A refused source leaves nothing in the lake. Expectations and evaluation find what shows only later (a single class,
leaks between training and test).
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.common.errors import Corrupt, NotFound, Rejected, TerminalError
from blocks.lake.local import LocalLake
from blocks.sources import FrameSource
from tasks.ingestion.landing import ingest_rows
from tasks.shared.rules.model.data import DataSpec, column_kinds
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.sources import open_source

SPEC = DataSpec(
    dataset="people", entity="id", target="left", features={"age": "number", "plan": "category"}, classes=("No", "Yes")
)
KINDS = column_kinds(SPEC)
HEADER = "id,age,plan,left\n"
GOOD = "".join(f"c{i},{i},basic,No\n" for i in range(20))


@pytest.fixture(autouse=True)
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.ingestion.landing.create_markdown_artifact", lambda **given: None)


@pytest.fixture
def lake(tmp_path: Path) -> LocalLake:
    return LocalLake(root=tmp_path / "lake")


def people(**changes: Any) -> pa.Table:
    columns = {
        "id": [f"c{i}" for i in range(20)],
        "age": [float(i) for i in range(20)],
        "plan": ["basic"] * 20,
        "left": ["No"] * 20,
    }
    return pa.table({**columns, **changes})


def last(column: str, value: Any) -> Callable[[Path], None]:
    """Write the people as Parquet, with another value in the last row."""
    values = people()[column].to_pylist()
    return parquet(people(**{column: [*values[:-1], value]}))


def parquet(
    *tables: pa.Table, damage: Callable[[bytes], bytes] = lambda data: data, **options: Any
) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for number, table in enumerate(tables):
            path = folder / f"part-{number}.parquet"
            pq.write_table(table, path, **options)
            path.write_bytes(damage(path.read_bytes()))

    return write


def text(content: str | bytes, name: str = "people.csv") -> Callable[[Path], None]:
    return lambda folder: (
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content) and None
    )


def objects(*lines: Any) -> Callable[[Path], None]:
    plain = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    return text("".join(f"{line}\n" for line in plain), "people.jsonl")


def all_of(*writers: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: [write(folder) for write in writers] and None


def flipped(data: bytes) -> bytes:
    at = data.index(b"basic\x05\0\0\0basic")  # among the values, not in the statistics
    return data[:at] + b"bbsic" + data[at + 5 :]


REFUSED = {
    "25 a CSV of zero bytes": (text(""), Rejected, r"people\.csv: the file is empty \(0 bytes\)"),
    "26 a header only": (text(HEADER), Rejected, r"people\.csv: there are 0 rows"),
    "29 a quote that is not closed": (text(f'{HEADER}{GOOD}x,1,"a,No\n'), Rejected, r"people\.csv line 22: a quote"),
    "30 a NUL byte": (text(f"{HEADER}{GOOD}x,1,\0,No\n"), Rejected, r"people\.csv line 22: a NUL byte"),
    "31 UTF-16": (text((HEADER + GOOD).encode("utf-16")), Rejected, r"people\.csv: this is UTF-16"),
    "32 Latin-1": (text(f"{HEADER}{GOOD}x,1,Zoë,No\n".encode("latin-1")), Rejected, r"line 22: byte 0xeb .*Latin-1"),
    "33 a column twice": (text("id,age,plan,left,age\n"), Rejected, r"line 1: duplicate column 'age'"),
    "37 semicolons": (text((HEADER + GOOD).replace(",", ";")), Rejected, r"line 1: .*separated by ';'"),
    "39 a Parquet file of zero bytes": (text("", "x.parquet"), Rejected, r"x\.parquet: the file is empty"),
    "40 cut in half": (parquet(people(), damage=lambda d: d[: len(d) // 2]), Rejected, r"part-0\.parquet.*not a whole"),
    "41 cut by a byte": (parquet(people(), damage=lambda d: d[:-1]), Rejected, r"part-0\.parquet.*not a whole"),
    "42 a CSV called Parquet": (text(HEADER + GOOD, "x.parquet"), Rejected, r"x\.parquet.*not a whole Parquet"),
    "43 a flipped byte": (
        parquet(people(), damage=flipped, write_page_checksum=True, compression="none", use_dictionary=False),
        Rejected, r"part-0\.parquet.*(checksum|CRC)",
    ),
    "43 a flipped byte of compressed pages": (
        parquet(people(), damage=lambda d: d[:60] + bytes([d[60] ^ 0xFF, d[61] ^ 0xFF]) + d[62:], compression="zstd"),
        (Rejected, Corrupt), r"part-0\.parquet|[Ss]nappy|ZSTD|[Dd]ecompress",
    ),
    "44 no columns": (parquet(pa.table({})), Rejected, r"part-0\.parquet.*(no columns|not a whole)"),
    "45 another schema in one file": (
        parquet(people(), people().drop_columns("plan")), Rejected, r"part-1\.parquet: column 'plan' is missing",
    ),
    "45 a type that is none of ours in one file": (
        parquet(people(), people(age=[[1.0]] * 20)), Rejected, r"column 'age' is of type list",
    ),
    "47 a stray .tmp": (
        all_of(parquet(people()), text("x", "part-1.parquet.tmp")), Rejected, r"part-1\.parquet\.tmp.*pattern",
    ),
    "48 an unseen character in a name": (
        parquet(people().rename_columns(["id", "\u202eage", "plan", "left"])), Rejected, r"'age' is missing .*\\u202eage",
    ),
    "48 a nameless column": (
        parquet(people().rename_columns(["", "age", "plan", "left"])), Rejected, r"'id' is missing .*''",
    ),
    "50 every label is null": (
        parquet(people(left=pa.nulls(20, pa.string()))), Refusal, r"all 20 rows .*20 null target.*row 1: null target",
    ),
    "52 a label that is a measurement": (
        parquet(people(left=[i / 3 for i in range(20)])), Refusal, r"all 20 rows .*target outside the classes.*row 1",
    ),
    "55 no rows": (parquet(people().slice(0, 0)), Rejected, r"there are 0 rows"),
    "58 times as numbers": (
        parquet(people(age=pd.date_range("2026-01-01", periods=20, tz="UTC"))), Rejected, r"'age' is of type timestamp.*a number",
    ),
    "59 a missing column": (
        text("id,aeg,plan,left\nx,1,a,No\n"), Rejected, r"line 1: column 'age' is missing \(did you mean 'aeg'\?\)",
    ),
    "JSON: no object at all": (objects("[1]", "2"), Refusal, r"all 2 rows .*2 unreadable.*line 1: not a JSON object"),
    "JSON: a column that no line has": (
        objects(*({"id": str(i), "plan": "x", "left": "No"} for i in range(20))), Rejected, r"'age' is missing",
    ),
    "JSON: an array in one file": (text("[\n]\n", "x.json"), Rejected, r"x\.json: files that end in '\.json'"),
    "folder: nothing in it": (lambda folder: None, NotFound, r"no file in the folder"),
}  # fmt: skip


@pytest.mark.parametrize(("write", "error", "said"), REFUSED.values(), ids=REFUSED)
def test_a_source_that_cannot_be_used_is_refused_with_its_place_and_leaves_nothing(
    lake: LocalLake, tmp_path: Path, write: Callable[[Path], None], error: type[Exception], said: str
) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in")
    with pytest.raises(error, match=said) as caught:
        ingest_rows(lake, SPEC, open_source(str(tmp_path / "in"), kinds=KINDS), scratch=tmp_path / "scratch")
    assert isinstance(caught.value, TerminalError | Refusal), "to try again would not help"
    assert lake.datasets() == ()
    assert list((tmp_path / "scratch").iterdir() if (tmp_path / "scratch").exists() else ()) == []


SET_ASIDE = {
    "27 an extra field": (text(f"{HEADER}{GOOD}x,1,000,a,No\n"), ["line 22: 5 fields where the header has 4"]),
    "28 a short row": (text(f"{HEADER}{GOOD}x,1\n"), ["line 22: 2 fields where the header has 4"]),
    "35 text among numbers": (text(f"{HEADER}{GOOD}x,old,a,No\n"), ["line 22: not a number: column 'age' holds 'old'"]),
    "36 NA as a number": (text(f"{HEADER}{GOOD}x,NA,a,No\n"), ["line 22: not a number: column 'age' holds 'NA'"]),
    "38 a number with a comma": (
        text(f'{HEADER}{GOOD}x,"1,000",a,No\n'), ["line 22: not a number: column 'age' holds '1,000'. If the comma is a mark, declare data.source.decimal or thousands"],
    ),
    "50 a null label": (last("left", None), ["row 20: null target"]),
    "50 a label NaN": (text(f"{HEADER}{GOOD}x,1,a,nan\n"), ["line 22: target outside the classes: 'nan'"]),
    "51 a label of other letters": (last("left", "no"), ["row 20: target outside the classes: 'no'"]),
    "53 infinity in a feature": (last("age", float("-inf")), ["row 20: not finite: column 'age' holds -inf"]),
    "53 infinity that a CSV writes as a number": (
        text(f"{HEADER}{GOOD}x,1e999,a,No\n"), ["line 22: not finite: column 'age' holds inf"],
    ),
    "56 a key twice": (last("id", "c0"), ["row 20: duplicate key: kept is row 1, with other values"]),
    "56 a key twice in two files": (
        parquet(people(), people(id=[*(f"d{i}" for i in range(19)), "c3"])),
        ["part-1.parquet row 20: duplicate key: kept is part-0.parquet row 4, with other values"],
    ),
    "57 a null key": (last("id", None), ["row 20: null entity key"]),
    "57 a blank key": (last("id", " \u3000"), ["row 20: null entity key"]),
    "JSON: a broken line": (
        objects(*({"id": f"c{i}", "age": i, "plan": "x", "left": "No"} for i in range(20)), '{"id": "x", "age"'),
        ["line 21: not a JSON object"],
    ),
    "JSON: a nested value": (
        objects(*({"id": f"c{i}", "age": i, "plan": "x", "left": "No"} for i in range(20)), {"id": "x", "age": {"n": 1}}),
        ["line 21: not a number: column 'age' holds '{\"n\":1}'"],
    ),
    "JSON: other types": (
        objects(*({"id": i, "age": str(i), "plan": i, "left": "No"} for i in range(20)), {"id": 99, "age": True, "left": "No"}),
        ["line 21: not a number: column 'age' holds 'true'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("write", "said"), SET_ASIDE.values(), ids=SET_ASIDE)
def test_a_row_that_does_not_fit_is_set_aside_with_its_place_and_the_others_land(
    lake: LocalLake, tmp_path: Path, write: Callable[[Path], None], said: Sequence[str]
) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in")
    landed = ingest_rows(lake, SPEC, open_source(str(tmp_path / "in"), kinds=KINDS))
    aside = lake.read(lake.as_of("people-quarantine")).to_pylist()
    assert [f"{row['position']}: {row['reason']}" for row in aside] == said
    assert landed.rows_in == landed.accepted + landed.quarantined
    assert lake.as_of("people").rows == landed.accepted


AS_THEY_ARE = {
    "34 a key of 20 digits": (text(f"{HEADER}{GOOD}12345678901234567890,1,a,No\n"), "id", "12345678901234567890"),
    "36 the text NA": (text(f"{HEADER}{GOOD}x,1,NA,No\n"), "plan", "NA"),
    "36 the text None": (text(f"{HEADER}{GOOD}x,1,None,No\n"), "plan", "None"),
    "46 a column more in one file": (parquet(people(), people(id=["x"] * 20, note=["n"] * 20).slice(0, 1)), "id", "x"),
    "54 a feature without a value": (parquet(people(plan=pa.nulls(20))), "plan", None),
    "59 columns in another order": (text("plan,left,id,age\n" + "pro,Yes,x,7\n"), "plan", "pro"),
    "JSON: a key of 20 digits": (
        objects({"id": 12345678901234567890, "age": 1, "plan": "x", "left": "No"}), "id", "12345678901234567890",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("write", "column", "value"), AS_THEY_ARE.values(), ids=AS_THEY_ARE)
def test_a_value_that_libraries_like_to_change_lands_as_it_is(
    lake: LocalLake, tmp_path: Path, write: Callable[[Path], None], column: str, value: str | None
) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in")
    assert ingest_rows(lake, SPEC, open_source(str(tmp_path / "in"), kinds=KINDS)).quarantined == 0
    assert value in lake.read(lake.as_of("people"), columns=[column])[column].to_pylist()
    dropped = lake.as_of("people").snapshots[0].notes.get("columns dropped")
    assert dropped == ("note" if column == "id" and value == "x" else None), "what is left out is named"


def test_51_numbers_as_labels_are_the_classes_that_are_declared_as_text(lake: LocalLake) -> None:
    frame = pd.DataFrame({"id": ["a", "b"], "age": 1.0, "plan": "x", "left": [1, 0]})
    spec = SPEC.model_copy(update={"classes": ("0", "1")})
    assert ingest_rows(lake, spec, FrameSource(frame, column_kinds(spec))).accepted == 2


def test_58_times_with_and_without_zones_are_told_by_column(lake: LocalLake) -> None:
    times = [pd.Timestamp("2026-01-01"), pd.Timestamp("2026-01-01", tz="UTC")]
    frame = pd.DataFrame({"id": ["a", "b"], "age": pd.Series(times, dtype=object), "plan": "x", "left": "No"})
    with pytest.raises((Rejected, Refusal), match="age"):
        ingest_rows(lake, SPEC, FrameSource(frame, KINDS))
    assert lake.datasets() == ()

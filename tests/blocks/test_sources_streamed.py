"""Streamed sources (folders, globs, JSON lines, S3, watermarks, staging): the rows of one file, in bounded memory."""

import json
import sqlite3
import time
from datetime import datetime
from decimal import Decimal

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from blocks.common.errors import NotFound, Rejected, Unavailable
from blocks.engines.duckdb import DuckDBEngine
from blocks.sources import FrameSource, WatermarkFilter
from blocks.sources.parquet_files import WHITESPACE
from blocks.sources.sql_query import Watermark
from blocks.sources.staging import FILE_COLUMN, ROW_COLUMN, stage_rows
from blocks.sources.text_blocks import read_blocks
from tasks.ingestion.rules.row_checks import staged_relation_sql
from tests.fixtures.sources import open_source

KINDS = {"id": "text", "age": "number", "plan": "category", "active": "flag"}
HEADER = "id,age,plan,active\n"


def rows(source):
    return [tuple(row.values()) for row in source.table.to_pylist()]


def broken(source):
    return [(row.position, row.reason) for row in source.unreadable_rows]


def lines_of(*objects):
    return "".join(f"{o if isinstance(o, str) else json.dumps(o)}\n" for o in objects)


def people(count, start=0, **changes):
    """A table of people; `changes` replaces whole columns."""
    columns = {
        "id": [f"c{i}" for i in range(start, start + count)],
        "age": [float(i) for i in range(count)],
        "plan": ["basic"] * count,
        "active": pa.array([i % 2 for i in range(count)], pa.int8()),
    }
    return pa.table({**columns, **changes})


# JSON lines


@pytest.fixture
def read_json(tmp_path):
    def read(text, kinds=None):
        path = tmp_path / "people.jsonl"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return open_source(str(path), kinds=kinds or KINDS).read_table()

    return read


def test_json_lines_are_read_with_their_lines_and_fixed_types(read_json):
    source = read_json(
        lines_of(
            {"id": 12345678901234567890, "age": 1, "plan": 'a\n"b"', "active": True, "more": 1},
            "",
            {"active": 0, "plan": None, "age": 2.5, "id": "007"},
            {"id": "x/y", "age": "3e2", "plan": " ", "active": "1"},
        )
    )
    assert rows(source) == [
        ("12345678901234567890", 1.0, 'a\n"b"', 1),
        ("007", 2.5, None, 0),
        ("x/y", 300.0, None, 1),
    ]
    assert source.positions.to_pylist() == ["line 1", "line 3", "line 4"]
    assert [str(f.type) for f in source.table.schema] == ["string", "double", "string", "int8"]
    assert source.undeclared_columns == ("more",)


GOOD = {"id": "a", "age": 1, "plan": "x", "active": 1}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": "b", "age": 1', "not a JSON object"),
        ("[1, 2]", "not a JSON object"),
        ("3", "not a JSON object"),
        ("b,1,x,1", "not a JSON object"),
        ('{"id": "b", "id": "c", "age": 1}', "duplicate name 'id'"),
        ({**GOOD, "age": {"years": 3}}, "not a number: column 'age' holds '{\"years\":3}'"),
        ({**GOOD, "age": [3]}, "not a number: column 'age' holds '[3]'"),
        ({**GOOD, "plan": {"name": "x"}}, "not a text: column 'plan' holds '{\"name\":\"x\"}'"),
        ({**GOOD, "id": ["a"]}, "not a text: column 'id' holds '[\"a\"]'"),
        ({**GOOD, "age": True}, "not a number: column 'age' holds 'true'"),
        ({**GOOD, "age": "twelve"}, "not a number: column 'age' holds 'twelve'"),
        ('{"id": "b", "age": NaN, "plan": "x", "active": 1}', "not a number: column 'age' holds 'NaN'"),
        ('{"id": "b", "age": Infinity, "plan": "x", "active": 1}', "not a number: column 'age' holds 'Infinity'"),
        ({**GOOD, "active": 2}, "not a flag (0 or 1): column 'active' holds '2'"),
        ({**GOOD, "active": 0.5}, "not a flag (0 or 1): column 'active' holds '0.5'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_json_line_that_does_not_fit_is_set_aside_and_its_neighbours_stay(read_json, line, reason):
    source = read_json(lines_of(GOOD, "", line, {**GOOD, "id": "z"}))
    assert broken(source) == [("line 3", reason)]
    assert source.unreadable_rows[0].raw_text == (line if isinstance(line, str) else json.dumps(line))
    assert [row[0] for row in rows(source)] == ["a", "z"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (lines_of(GOOD).encode("utf-16"), "UTF-16"),
        (b'{"id": "a"}\n{"id": "Zo\xeb"}\n', "line 2: byte 0xeb is not UTF-8"),
        (b'{"id": "a"}\n{"id": "\0"}\n', "line 2: a NUL byte"),
        (lines_of({"id": "a", "aeg": 1, "plan": "x", "active": 1}).encode(), "'age' is missing .did you mean 'aeg'"),
    ],
    ids=["nothing", "blank", "utf-16", "latin-1", "nul", "no column"],
)
def test_json_lines_that_cannot_be_used_are_refused_with_the_place(read_json, text, said):
    with pytest.raises(Rejected, match=said):
        read_json(text)


# Blocks: the position where a file is cut must not matter


texts = st.text(st.sampled_from('ab ,"\n\u00e4é'), max_size=5)


@settings(max_examples=60)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=20), st.integers(1, 60))
def test_where_a_csv_is_cut_into_blocks_does_not_matter(tmp_path_factory, records, size):
    from blocks.sources import text_blocks as lines

    path = tmp_path_factory.mktemp("cut") / "x.csv"
    written = ['"' + a.replace('"', '""') + '",' + '"' + b.replace('"', '""') + '"' for a, b in records]
    path.write_text("a,b\n" + "\n".join([*written, "only one"]), newline="")
    kinds = {"a": "text", "b": "text"}
    whole = open_source(str(path), kinds=kinds).read_table()
    before, lines.BLOCK_BYTES = lines.BLOCK_BYTES, size
    try:
        cut = open_source(str(path), kinds=kinds).read_table()
    finally:
        lines.BLOCK_BYTES = before
    assert rows(cut) == rows(whole)
    assert cut.positions.to_pylist() == whole.positions.to_pylist()
    assert cut.unreadable_rows == whole.unreadable_rows
    assert len(whole.unreadable_rows) == 1


def test_a_quote_that_never_closes_is_refused_before_memory_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr("blocks.sources.text_blocks.MAX_RECORD_BYTES", 10_000)
    monkeypatch.setattr("blocks.sources.text_blocks.BLOCK_BYTES", 1_000)
    path = tmp_path / "x.csv"
    path.write_text(HEADER + 'a,1,"b,1\n' + "b,1,c,1\n" * 50_000)
    with pytest.raises(Rejected, match=r"line 2: a record of more than .*quote"):
        open_source(str(path), kinds=KINDS).read_table()


def test_mistakes_in_later_blocks_name_their_line(tmp_path, monkeypatch):
    monkeypatch.setattr("blocks.sources.text_blocks.BLOCK_BYTES", 100)
    path = tmp_path / "x.csv"
    for bad, said in ((b"a,1,Zo\xeb,1\n", "line 1002: byte 0xeb"), (b'a,1,5" x,1\n', "line 1002: a quote")):
        path.write_bytes(HEADER.encode() + b"a,1,b,1\n" * 1_000 + bad + b"c,1,d,0\n" * 9)
        with pytest.raises(Rejected, match=said):
            open_source(str(path), kinds=KINDS).read_table()


def test_a_byte_order_mark_of_a_file_in_blocks_is_taken_off_once(tmp_path):
    from blocks.sources.file_listing import SourceFile

    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbfid\n1\n2\n")
    found = list(
        read_blocks(SourceFile(path, "line"), find_record_end=lambda data: data.rfind(b"\n") + 1, block_bytes=5)
    )
    assert b"".join(block.data for block in found) == b"id\n1\n2\n"
    assert [block.first_line for block in found] == [1, 2, 3][: len(found)]


# Folders and globs


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "in"
    (inside / "more").mkdir(parents=True)
    (inside / "b.csv").write_text(HEADER + "b,1,x,1\n?,?,x,1\n")
    (inside / "a.csv").write_text("plan,id,age,active,note\nx,a,2,0,n\n")
    (inside / "more" / "c.csv").write_text(HEADER + "c,3,y,1\n")
    (inside / "_SUCCESS").write_text("")
    (inside / ".b.csv.crc").write_text("")
    return inside


def test_a_folder_is_read_in_the_order_of_its_files_each_row_with_its_file(folder):
    source = open_source(str(folder), kinds=KINDS).read_table()
    assert [row[0] for row in rows(source)] == ["a", "b", "c"]
    assert source.positions.to_pylist() == ["a.csv line 2", "b.csv line 2", "more/c.csv line 2"]
    assert broken(source) == [("b.csv line 3", "not a number: column 'age' holds '?'")]
    assert source.undeclared_columns == ("note",)
    assert source.description == f"3 CSV files {folder}"


def test_a_glob_chooses_among_the_files(folder):
    (folder / "notes.txt").write_text("x")
    assert [row[0] for row in rows(open_source(f"{folder}/*.csv", kinds=KINDS).read_table())] == ["a", "b"]
    assert [row[0] for row in rows(open_source(f"{folder}/[c-z]*/*.csv", kinds=KINDS).read_table())] == ["c"]


@pytest.mark.parametrize(
    ("add", "named", "error", "said"),
    [
        ({"part-3.csv.tmp": "x"}, "", Rejected, r"part-3\.csv\.tmp.*'\.tmp' cannot be read.*pattern"),
        ({"x.jsonl": "{}"}, "", Rejected, r"files of \.csv and \.jsonl"),
        ({"d.csv": "id,age,plan\nd,1,x\n"}, "", Rejected, r"d\.csv line 1: column 'active' is missing"),
        ({"d.csv": ""}, "", Rejected, r"d\.csv: the file is empty"),
        ({}, "/*.parquet", NotFound, r"No file matches .*\*\.parquet"),
        ({}, "/none", NotFound, "There is no file"),
        ({}, "/../in", Rejected, r"'\.\.'"),
    ],
    ids=["stray .tmp", "two formats", "other schema", "empty file", "no match", "no folder", "upwards"],
)
def test_a_folder_that_leaves_doubt_is_refused_with_the_file(folder, add, named, error, said):
    for name, text in add.items():
        (folder / name).write_text(text)
    with pytest.raises(error, match=said):
        open_source(f"{folder}{named}", kinds=KINDS).read_table()


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(NotFound, match="no file in the folder"):
        open_source(str(tmp_path / "in"), kinds=KINDS).read_table()


def test_parquet_files_whose_types_differ_become_one_type(tmp_path):
    pq.write_table(people(2), tmp_path / "a.parquet")
    pq.write_table(people(2, 2, age=pa.array([7, 8], pa.int32())), tmp_path / "b.parquet")
    pq.write_table(people(2, 4, age=["9", "ten"], extra=[1, 2]), tmp_path / "c.parquet")
    source = open_source(f"{tmp_path}/*.parquet", kinds=KINDS).read_table()
    assert source.table["age"].to_pylist() == [0.0, 1.0, 7.0, 8.0, 9.0]
    assert broken(source) == [("c.parquet row 2", "not a number: column 'age' holds 'ten'")]
    assert source.undeclared_columns == ("extra",)


def test_a_file_that_changes_while_it_is_read_is_no_source(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(HEADER + "a,1,b,1\n")
    source = open_source(str(path), kinds=KINDS)
    path.write_text(HEADER + "a,1,b,1\nb,1,b,1\n")
    with pytest.raises(Unavailable, match="changed while it was read"):
        source.read_table()
    with pytest.raises(Unavailable, match="changed"):
        source.content_digest()


def test_identity_is_of_the_bytes_and_the_declaration_not_the_names(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.csv").write_text(HEADER + "a,1,b,1\n")
    one, other = (open_source(str(tmp_path / name), kinds=KINDS).content_digest() for name in ("a", "b"))
    assert one == other
    assert one != open_source(str(tmp_path / "a"), kinds={**KINDS, "age": "text"}).content_digest()
    (tmp_path / "b" / "b.csv").write_text(HEADER + "a,1,b,0\n")
    assert one != open_source(str(tmp_path / "b"), kinds=KINDS).content_digest()


# Staging


def staged_rows(source, folder):
    folder.mkdir()
    staged = stage_rows(source, folder)
    files = [str(file) for file in staged.files]
    sql = staged_relation_sql(staged.column_sql, files)
    found = DuckDBEngine().query(f"SELECT * FROM ({sql}) r ORDER BY {FILE_COLUMN}, {ROW_COLUMN}", {"staged": files})
    return staged, found


FITTING = {
    "floats": people(9),
    "whole numbers": people(9, age=pa.array(range(9), pa.int32()), id=pa.array(range(9))),
    "blanks": people(4, plan=["", " \u3000", "\u00a0x", "é"]),
    "nulls": people(
        3,
        age=pa.array([None, 1.0, float("nan")]),
        plan=pa.array([None, "a", "b"]),
        active=pa.array([None, True, False]),
    ),
    "dictionary": people(3, plan=pa.array(["a", " ", "b"]).dictionary_encode()),
    "large text": people(3, plan=pa.array(["a", "b", "\t"], pa.large_string())),
    "small floats": people(3, age=pa.array([0.1, 2.0, None], pa.float32())),
    "infinity": people(2, age=[float("inf"), 1.0]),
}


@pytest.mark.parametrize("table", FITTING.values(), ids=FITTING)
def test_parquet_that_fits_is_scanned_as_it_is_and_gives_what_reading_gives(tmp_path, table):
    path = tmp_path / "x.parquet"
    pq.write_table(table, path)
    staged, found = staged_rows(open_source(str(path), kinds=KINDS), tmp_path / "work")
    assert staged.files == (path,), "nothing was written"
    expected = pa.concat_tables(
        [people(1).slice(0, 0), *(piece.table for piece in open_source(str(path), kinds=KINDS).batches())],
        promote_options="permissive",
    )
    assert found.select(list(KINDS)).cast(expected.schema).equals(expected)
    assert found[ROW_COLUMN].to_pylist() == list(range(1, table.num_rows + 1))
    assert ("age" in staged.finite_columns) == (
        not any(v is not None and np.isinf(v) for v in table["age"].to_pylist())
    )


UNFIT = {
    "text as a number": people(2, age=["1", "x"]),
    "flag of 7": people(2, active=[1, 7]),
    "flag as a float": people(2, active=[1.0, 0.0]),
    "float as text": people(2, plan=[1.0, 2.5]),
    "own names": people(2, file_row_number=[7, 8]),
}


@pytest.mark.parametrize("table", UNFIT.values(), ids=UNFIT)
def test_parquet_with_values_to_be_looked_at_is_read_first(tmp_path, table):
    path = tmp_path / "x.parquet"
    pq.write_table(table, path)
    staged, found = staged_rows(open_source(str(path), kinds=KINDS), tmp_path / "work")
    assert staged.files != (path,)
    assert found.num_rows + staged.unreadable_row_count == 2
    assert found[ROW_COLUMN].to_pylist() == ([1] if staged.unreadable_row_count else [1, 2])


def test_an_integer_too_large_to_be_exact_everywhere_is_looked_at(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"n": [1, 10**18]}), path)
    staged, found = staged_rows(open_source(str(path), kinds={"n": "integer"}), tmp_path / "work")
    assert (found["n"].to_pylist(), staged.unreadable_row_count) == ([1], 1)
    pq.write_table(pa.table({"n": [1, 10**18 - 1]}), path)
    staged, _ = staged_rows(open_source(str(path), kinds={"n": "integer"}), tmp_path / "more")
    assert staged.files == (path,)


def test_the_blanks_in_sql_are_those_of_arrow():
    every = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    trimmed = pc.utf8_trim_whitespace(pa.array(every)).to_pylist()
    assert {c for c, left in zip(every, trimmed, strict=True) if left == ""} == set(WHITESPACE)


def test_pages_with_checksums_are_verified(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(
        people(5_000, plan=[f"p{i}" for i in range(5_000)]), path, write_page_checksum=True, compression="none"
    )
    assert open_source(str(path), kinds=KINDS).direct_scan() is None
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(Rejected, match=r"x\.parquet.*[Cc]hecksum"):
        open_source(str(path), kinds=KINDS).read_table()


# Watermarks


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "crm.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE people (id, age, plan, active, changed)")
        connection.executemany(
            "INSERT INTO people VALUES (?, 1, 'x', 1, ?)",
            [("a", "2026-01-01"), ("b", "2026-01-03"), ("c", "2026-01-02")],
        )
    connection.close()
    return path


def query_since(database, after=None, query="SELECT * FROM people -- all;", column="changed"):
    return open_source(f"sqlite:///{database}", query=query, kinds=KINDS, watermark=WatermarkFilter(column, after))


def test_a_watermark_is_the_highest_value_and_asks_only_for_what_is_newer(database):
    first = query_since(database)
    assert [row[0] for row in rows(first.read_table())] == ["a", "b", "c"]
    notes = first.snapshot_notes()
    assert notes["watermark"] == "2026-01-03"
    with sqlite3.connect(database) as connection:
        connection.execute("INSERT INTO people VALUES ('d', 1, 'x', 1, '2026-01-04'), ('e', 1, 'x', 1, '2026-01-02')")
    connection.close()
    second = query_since(database, Watermark.from_notes(notes, notes["watermark id"]))
    assert [row[0] for row in rows(second.read_table())] == ["d"]
    assert second.snapshot_notes() == {**notes, "watermark": "2026-01-04"}
    assert "changed > 2026-01-03" in second.description


@pytest.mark.parametrize(
    ("value", "kind"),
    [(7, "integer"), (7.5, "float"), ("2026-01-02 03:04", "text"), (datetime(2026, 1, 2, 3, 4, 5, 6), "time"),
     (datetime(2026, 1, 2).date(), "date"), (Decimal("7.10"), "decimal")],
)  # fmt: skip
def test_a_watermark_is_kept_as_text_and_comes_back_as_it_was(value, kind):
    mark = Watermark.highest([value], None, "query", 1, "changed")
    assert mark.kind == kind
    again = Watermark.from_notes(mark.notes("changed of query 1"), "changed of query 1")
    assert again.value() == value
    assert Watermark.from_notes(mark.notes("x"), "other") is None


def test_a_watermark_cannot_break_out_of_the_query(database):
    with pytest.raises(Rejected, match="is text, and holds"):
        query_since(database, Watermark("text", "x' OR '1'='1"))


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        (["2026-01-09", "2026-01-10"], True),
        (["2026-01-09T08:00:00Z", "2026-01-09T09:00:00Z"], True),
        (["2026-01-09 08:00:00.125+01:00", "2026-01-09 09:00:00.250+01:00"], True),
        (["v9", "v10"], False),
        (["9", "10"], False),
        (["2026-01-09T08:00:00+01:00", "2026-01-09T08:00:00+02:00"], False),
        (["2026-01-09 08:00:00", "2026-01-09T08:00:00"], False),
        (["2026-01-09", "2026-01-09T08:00:00"], False),
        (["2026-01-09T08:00:00.5", "2026-01-09T08:00:00.25"], False),
        (["2026-02-30"], False),
        (["09.01.2026"], False),
    ],
)
def test_a_text_watermark_is_taken_only_where_its_order_is_that_of_time(values, fits):
    if fits:
        assert Watermark.highest(values, None, "query", 1, "changed").value_text == values[-1]
        return
    with pytest.raises(Rejected, match="CAST it to a time or a number"):
        Watermark.highest(values, None, "query", 1, "changed")


def test_a_text_watermark_keeps_its_form_from_load_to_load():
    first = Watermark.highest(["2026-01-09 08:00:00"], None, "query", 1, "changed")
    with pytest.raises(Rejected, match="one form and zone"):
        Watermark.highest(["2026-01-10T08:00:00"], first, "query", 1, "changed")


@pytest.mark.parametrize(
    ("kind", "value", "look_back", "expected"),
    [
        ("integer", "100", "30", "70"),
        ("float", "1.5", "0.5", "1.0"),
        ("decimal", "7.10", "0.1", "7.00"),
        ("time", "2026-01-09T08:00:00+01:00", "36 hours", "2026-01-07T20:00:00+01:00"),
        ("integer", "100", "0.5", "99"),
        ("date", "2026-03-01", "2 days", "2026-02-27"),
        ("date", "2026-03-01", "12 hours", "2026-02-28"),
        ("date", "2026-03-01", "36 hours", "2026-02-27"),
        ("text", "2026-03-01", "36 hours", "2026-02-27"),
        ("text", "2026-03-01", "1 week", "2026-02-22"),
        ("text", "2026-03-01 00:30:00.250Z", "90 minutes", "2026-02-28 23:00:00.250Z"),
    ],
)
def test_a_look_back_lies_before_the_watermark_in_the_same_form(kind, value, look_back, expected):
    assert Watermark(kind, value).minus(look_back) == Watermark(kind, expected)


@pytest.mark.parametrize(
    ("kind", "value", "look_back", "said"),
    [
        ("integer", "100", "3 days", "Give a number"),
        ("time", "2026-01-09T08:00:00", "1000", "Give a duration"),
        ("text", "2026-01-09", "10", "Give a duration"),
        ("integer", "100", "-5", "neither a duration nor a number"),
        ("integer", "100", "3 fortnights", "neither a duration nor a number"),
    ],
)
def test_a_look_back_that_does_not_fit_the_watermark_is_refused(kind, value, look_back, said):
    with pytest.raises(Rejected, match=said):
        Watermark(kind, value).minus(look_back)


@pytest.mark.parametrize(
    ("change", "column", "said"),
    [
        ("UPDATE people SET changed = NULL WHERE id = 'b'", "changed", "row 2: the watermark column 'changed' is null"),
        ("UPDATE people SET changed = 7 WHERE id = 'b'", "changed", "has no order"),
        ("UPDATE people SET changed = x'00'", "changed", "has no order"),
        ("SELECT 1", "chnaged", "column 'chnaged' is missing .did you mean 'changed'"),
    ],
    ids=["null", "mixed", "bytes", "no column"],
)
def test_a_watermark_without_an_order_is_refused(database, change, column, said):
    with sqlite3.connect(database) as connection:
        connection.execute(change)
    connection.close()
    with pytest.raises(Rejected, match=said):
        query_since(database, column=column).read_table()


# S3


@pytest.fixture(scope="module")
def s3_server():
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    name = f"data-{time.time_ns()}"
    client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    return client, name


def put(bucket, tmp_path, **objects):
    client, name = bucket
    for key, table in objects.items():
        pq.write_table(table, tmp_path / "object.parquet")
        client.put_object(Bucket=name, Key=key, Body=(tmp_path / "object.parquet").read_bytes())


@pytest.mark.parametrize("named", ["in", "in/", "in/*.parquet", "in/part-?.parquet"])
def test_an_s3_prefix_is_read_in_the_order_of_its_keys(bucket, tmp_path, named):
    client, name = bucket
    put(
        bucket,
        tmp_path,
        **{"in/part-2.parquet": people(2, 2), "in/part-1.parquet": people(2), "inner/x.parquet": people(9)},
    )
    client.put_object(Bucket=name, Key="in/_SUCCESS", Body=b"")
    source = open_source(f"s3://{name}/{named}", kinds=KINDS, scratch=tmp_path)
    table = source.read_table()
    assert [row[0] for row in rows(table)] == ["c0", "c1", "c2", "c3"]
    assert table.positions[3].as_py() == "in/part-2.parquet row 2"
    before = {path.name for path in tmp_path.iterdir()}
    source.close()
    assert before - {path.name for path in tmp_path.iterdir()}, "the fetched copies are gone"


def test_the_name_of_an_object_is_no_pattern_where_there_is_such_an_object(bucket, tmp_path):
    put(bucket, tmp_path, **{"in/plan=pro/a*.parquet": people(2), "in/plan=pro/ab.parquet": people(3, 7)})
    source = open_source(f"s3://{bucket[1]}/in/plan=pro/a*.parquet", kinds=KINDS, scratch=tmp_path)
    staged, found = staged_rows(source, tmp_path / "work")
    assert staged.column_sql is not None
    assert found["id"].to_pylist() == ["c0", "c1"]
    assert set(found["plan"].to_pylist()) == {"basic"}


def test_one_object_is_read_and_its_messages_name_its_address(bucket, tmp_path):
    client, name = bucket
    client.put_object(Bucket=name, Key="x.csv", Body=(HEADER + "a,1,b,1\n").encode())
    source = open_source(f"s3://{name}/x.csv", kinds=KINDS).read_table()
    assert (rows(source), source.positions.to_pylist()) == ([("a", 1.0, "b", 1)], ["line 2"])
    client.put_object(Bucket=name, Key="x.csv", Body=(HEADER + 'a,1,"b,1\n').encode())
    with pytest.raises(Rejected, match=rf"^s3://{name}/x\.csv line 2: a quote"):
        open_source(f"s3://{name}/x.csv", kinds=KINDS).read_table()


def test_the_identity_of_objects_is_known_before_they_are_fetched(bucket, tmp_path):
    put(bucket, tmp_path, **{"a.parquet": people(2)})
    _, name = bucket
    one = open_source(f"s3://{name}/a.parquet", kinds=KINDS).content_digest()
    assert one == open_source(f"s3://{name}/a.parquet", kinds=KINDS).content_digest()
    put(bucket, tmp_path, **{"a.parquet": people(3)})
    assert one != open_source(f"s3://{name}/a.parquet", kinds=KINDS).content_digest()


def test_an_object_that_changed_after_it_was_listed_is_not_read(bucket, tmp_path):
    put(bucket, tmp_path, **{"a.parquet": people(2)})
    source = open_source(f"s3://{bucket[1]}/a.parquet", kinds=KINDS)
    put(bucket, tmp_path, **{"a.parquet": people(3)})
    with pytest.raises(Unavailable, match=r"a\.parquet: the object changed"):
        source.read_table()


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        ("s3://{bucket}/none/", NotFound, "there is no object"),
        ("s3://{bucket}/in/*.csv", NotFound, "there is no object"),
        ("s3://no-such-bucket-here/x", NotFound, "NoSuchBucket"),
        ("s3://{bucket}/odd/", Rejected, r"odd/x\.tmp.*cannot be read"),
        ("s3://{bucket}/../x", Rejected, "names no objects"),
        ("s3:///x", Rejected, "names no objects"),
    ],
    ids=["nothing", "no match", "no bucket", "stray .tmp", "upwards", "no name"],
)
def test_an_address_without_readable_objects_is_refused(bucket, tmp_path, address, error, said):
    client, name = bucket
    put(bucket, tmp_path, **{"in/a.parquet": people(2)})
    client.put_object(Bucket=name, Key="odd/x.tmp", Body=b"x")
    with pytest.raises(error, match=said):
        open_source(address.format(bucket=name), kinds=KINDS).read_table()


def test_an_s3_that_does_not_answer_is_worth_another_try(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(Unavailable, match="does not respond"):
        open_source("s3://bucket/x.csv", kinds=KINDS).read_table()


def test_a_frame_is_read_in_parts_with_its_row_numbers():
    frame = people(150_000).to_pandas()
    pieces = list(FrameSource(frame, KINDS).batches())
    assert len(pieces) > 1
    assert pieces[-1].row_numbers[-1].as_py() == 150_000


# Memory


@pytest.fixture
def pool():
    """Arrow's memory, counted from here on."""
    before = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(before)
    pa.set_memory_pool(counted)
    yield counted
    pa.set_memory_pool(before)


LONG = {"csv": "c,1,basic,1\n", "jsonl": '{"id":"c","age":1,"plan":"basic","active":1}\n', "parquet": ""}


@pytest.mark.parametrize("form", LONG)
def test_memory_does_not_grow_with_the_source(tmp_path, monkeypatch, pool, form):
    monkeypatch.setattr("blocks.sources.text_blocks.BLOCK_BYTES", 1 << 16)
    monkeypatch.setattr("blocks.sources.csv_files._BLOCK_BYTES", 1 << 16)
    monkeypatch.setattr("blocks.sources.staging._ROW_GROUP_ROWS", 2_500)
    monkeypatch.setattr("blocks.sources.parquet_files.BATCH_ROWS", 2_500)
    count, path, held, whole = 300_000, tmp_path / f"people.{form}", [], []
    if form == "parquet":  # with page checksums, so that it is read by this code and not scanned by the engine
        table = people(1_000).take(pa.array(np.arange(count) % 1_000))
        pq.write_table(table, path, write_page_checksum=True, row_group_size=20_000)
        del table
    else:
        path.write_text((HEADER if form == "csv" else "") + LONG[form] * count)

    def seen(piece):
        held.append(pool.bytes_allocated())
        whole.append(piece.table.nbytes)

    assert stage_rows(open_source(str(path), kinds=KINDS), tmp_path, seen).rows == count
    assert max(held) < sum(whole) / 3, f"{max(held)} bytes were held of {sum(whole)}"

"""Declared dialects: what is declared is read so, and what looks otherwise is refused with the key to declare."""

import gzip
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.common.errors import Rejected
from blocks.sources import SourceFormat
from blocks.sources.base import SourceTable
from tests.fixtures.s3_server import s3_with_bucket
from tests.fixtures.sources import open_source

KINDS = {"id": "text", "age": "number", "plan": "category", "vip": "flag"}
GERMAN = "id;age;plan;vip\n007;1,5;Jörg;1\nb;1.234,5;x;0\nc;12;y;1,0\n"
RIGHT = [("007", 1.5, "Jörg", 1), ("b", 1234.5, "x", 0), ("c", 12.0, "y", 1)]
SEMICOLONS = SourceFormat(delimiter=";", decimal=",", thousands=".")

Read = Callable[..., SourceTable]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read_file(name: str, content: str | bytes, format_: SourceFormat) -> SourceTable:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return open_source(str(path), kinds=KINDS, source_format=format_).read_table()

    return read_file


def rows(table: SourceTable) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in table.table.to_pylist()]


@pytest.mark.parametrize(
    ("name", "content", "format_"),
    [
        pytest.param("a.csv", GERMAN, SEMICOLONS, id="semicolons"),
        pytest.param("a.tsv", GERMAN.replace(";", "\t"), SourceFormat(decimal=",", thousands="."), id="tsv by its name"),
        pytest.param("a.csv", GERMAN.replace(";", "\t"), SourceFormat("\t", ",", "."), id="tabs declared"),
        pytest.param("a.csv", GERMAN.replace(";", "|"), SourceFormat("|", ",", "."), id="bars"),
        pytest.param("a.csv", GERMAN.encode("latin-1"), SourceFormat(";", ",", ".", "latin-1"), id="Latin-1"),
        pytest.param("a.csv", GERMAN.encode("cp1252"), SourceFormat(";", ",", ".", "windows-1252"), id="Windows-1252"),
        pytest.param("a.csv", GERMAN.encode("utf-16"), SourceFormat(";", ",", ".", "utf-16"), id="UTF-16"),
        pytest.param("A.CSV.GZ", gzip.compress(GERMAN.encode()), SEMICOLONS, id="gzip"),
        pytest.param("a.csv.gz", gzip.compress(GERMAN[:20].encode()) + gzip.compress(GERMAN[20:].encode()), SEMICOLONS, id="gzip of two members"),
        pytest.param("a.csv.gz", gzip.compress(GERMAN.encode("latin-1")), SourceFormat(";", ",", ".", "latin-1"), id="gzip of Latin-1"),
        pytest.param("a.csv", "\ufeff" + GERMAN, SEMICOLONS, id="a byte order mark"),
        pytest.param("a.csv", GERMAN.replace("\n", "\r\n"), SEMICOLONS, id="Windows' line ends"),
        pytest.param("a.csv", '"id";"age";"plan";"vip"\n"007";"1,5";"Jörg";"1"\nb;"1.234,5";"x";0\nc;12;y;1,0\n', SEMICOLONS, id="quoted"),
    ],
)  # fmt: skip
def test_a_declared_dialect_gives_the_same_values(
    read: Read, name: str, content: str | bytes, format_: SourceFormat
) -> None:
    table = read(name, content, format_)
    assert rows(table) == RIGHT
    assert table.positions.to_pylist() == ["line 2", "line 3", "line 4"]


@pytest.mark.parametrize("line", ["sep=;\r\n", "\ufeffsep=;\n", '"sep=;"\n', "SEP=;\n"])
def test_excels_line_that_names_the_declared_delimiter_is_no_row(read: Read, line: str) -> None:
    table = read("a.csv", line + GERMAN, SEMICOLONS)
    assert rows(table) == RIGHT
    assert table.positions.to_pylist() == ["line 3", "line 4", "line 5"]


@pytest.mark.parametrize(
    ("name", "content", "format_", "remedy"),
    [
        pytest.param("a.csv", GERMAN, SourceFormat(), "data.source.delimiter: semicolon", id="semicolons"),
        pytest.param("a.csv", '"id";"age";"plan";"vip"\n"1";"1";"x";"0"\n', SourceFormat(), "data.source.delimiter: semicolon", id="quoted semicolons"),
        pytest.param("a.csv", GERMAN.replace(";", "\t"), SourceFormat(), "data.source.delimiter: tab", id="tabs"),
        pytest.param("a.csv", "id,age,plan,vip\n1,2,x,0\n", SEMICOLONS, "data.source.delimiter: comma", id="commas where semicolons are declared"),
        pytest.param("a.csv", "sep=;\n" + GERMAN, SourceFormat(), "data.source.delimiter: semicolon", id="Excel's line"),
        pytest.param("a.csv", GERMAN.encode("latin-1"), SEMICOLONS, "data.source.encoding", id="Latin-1"),
        pytest.param("a.csv", GERMAN.encode("utf-16"), SEMICOLONS, "data.source.encoding: utf-16", id="UTF-16"),
        pytest.param("a.csv", GERMAN, SourceFormat(";", ",", ".", "latin-1"), "valid UTF-8", id="UTF-8 where Latin-1 is declared"),
        pytest.param("a.csv", GERMAN.replace("ö", "€").encode("cp1252"), SourceFormat(";", ",", ".", "latin-1"), "encoding: windows-1252", id="Windows-1252 where Latin-1 is declared"),
        pytest.param("a.csv", GERMAN.encode("latin-1"), SourceFormat(";", ",", ".", "utf-16"), "data.source.encoding", id="Latin-1 where UTF-16 is declared"),
        pytest.param("a.csv", gzip.compress(GERMAN.encode()), SEMICOLONS, "a.csv.gz", id="gzip not named"),
        pytest.param("a.csv.gz", GERMAN, SEMICOLONS, "not gzip", id="gzip in name only"),
        pytest.param("a.csv.gz", gzip.compress(GERMAN.encode())[:-9], SEMICOLONS, "not a whole gzip file", id="half a gzip file"),
        pytest.param("a.csv", b"PK\x03\x04 and more", SourceFormat(), "Excel workbook", id="a workbook"),
        pytest.param("a.parquet.gz", gzip.compress(b"PAR1"), SourceFormat(), "Decompress", id="Parquet in gzip"),
    ],
)  # fmt: skip
def test_a_file_of_another_dialect_is_refused_with_the_remedy(
    read: Read, name: str, content: str | bytes, format_: SourceFormat, remedy: str
) -> None:
    with pytest.raises(Rejected) as refused:
        read(name, content, format_)
    assert remedy in str(refused.value)


def test_a_number_of_another_form_than_declared_is_set_aside_and_not_read_as_another_value(read: Read) -> None:
    content = "id;age;plan;vip\na;1.5;x;1\nb;1,234.5;x;1\nc;2,5;x;1\nd;;x;1\n"
    table = read("a.csv", content, SourceFormat(";", ","))
    assert rows(table) == [("c", 2.5, "x", 1), ("d", None, "x", 1)]
    assert [row.position for row in table.unreadable_rows] == ["line 2", "line 3"]
    undeclared = read("b.csv", "id;age;plan;vip\na;1,5;x;1\nb;2;x;1\n", SourceFormat(";"))
    assert "declare data.source.decimal" in undeclared.unreadable_rows[0].reason


@pytest.mark.parametrize("text", ["1.23", "12.3456,7", "1.2345", ".5", "1..234"])
def test_groups_that_are_not_of_three_digits_are_no_number(read: Read, text: str) -> None:
    table = read("a.csv", f"id;age;plan;vip\na;{text};x;1\nb;2;x;1\n", SEMICOLONS)
    assert [row.position for row in table.unreadable_rows] == ["line 2"]


def test_quotes_are_text_where_fields_are_declared_to_have_none(read: Read) -> None:
    table = read("a.tsv", 'id\tage\tplan\tvip\n1\t2\t5" pipe\t0\n', SourceFormat(quoted=False))
    assert rows(table) == [("1", 2.0, '5" pipe', 0)]


def test_a_file_that_expands_beyond_reason_is_refused(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocks.sources.dialects.FREE_EXPANSION_BYTES", 1 << 16)
    with pytest.raises(Rejected, match="times its size"):
        read("a.csv.gz", gzip.compress(("id,age,plan,vip\n" + "1,2,x,0\n" * 500_000).encode()), SourceFormat())


def test_json_lines_may_be_compressed_and_a_folder_may_mix_both(tmp_path: Path) -> None:
    line = '{"id": "1", "age": 2, "plan": "x", "vip": true}\n'
    (tmp_path / "a.jsonl").write_text(line)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(line.encode()))
    table = open_source(str(tmp_path), kinds=KINDS).read_table()
    assert rows(table) == [("1", 2.0, "x", 1)] * 2
    assert table.positions.to_pylist() == ["a.jsonl line 1", "b.jsonl.gz line 1"]


def test_another_declaration_of_the_same_file_is_another_content(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(GERMAN)
    formats = (SourceFormat(), SEMICOLONS, SourceFormat(";", ","))
    digests = {open_source(str(tmp_path / "a.csv"), kinds=KINDS, source_format=f).content_digest() for f in formats}
    assert len(digests) == 3


PLAN = SourceFormat(partitions=("plan",))


class Folder:
    """Parquet files in `plan=value/` folders of this machine."""

    def __init__(self, path: Path) -> None:
        self.address, self._path = str(path / "in"), path / "in"

    def put(self, name: str, table: pa.Table) -> None:
        (self._path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, self._path / name)


class Prefix(Folder):
    """The same below a prefix of a bucket."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.address = "s3://parts/in/"

    def put(self, name: str, table: pa.Table) -> None:
        super().put(name, table)
        boto3.client("s3").upload_file(str(self._path / name), "parts", f"in/{name}")


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    with s3_with_bucket("parts"):
        yield


@pytest.fixture(params=["folder", pytest.param("prefix", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "folder":
        return Folder(tmp_path)
    request.getfixturevalue("s3")
    client = boto3.client("s3")
    for found in client.list_objects_v2(Bucket="parts").get("Contents", ()):
        client.delete_object(Bucket="parts", Key=found["Key"])
    return Prefix(tmp_path)


def people(*ids: str, **columns: list[object]) -> pa.Table:
    return pa.table({"id": list(ids), "age": [1.0] * len(ids), "vip": [True] * len(ids), **columns})


def test_declared_partition_folders_are_a_column(place: Folder) -> None:
    place.put("plan=pro/a.parquet", people("1", "2"))
    place.put("plan=caf%C3%A9%2Fbar/a.parquet", people("3"))
    place.put("plan=__HIVE_DEFAULT_PARTITION__/a.parquet", people("4"))
    source = open_source(place.address, kinds=KINDS, source_format=PLAN)
    found = {row["id"]: row["plan"] for row in source.read_table().table.to_pylist()}
    source.close()
    assert found == {"1": "pro", "2": "pro", "3": "café/bar", "4": None}


def test_one_content_in_two_partitions_is_two_files(place: Folder) -> None:
    place.put("plan=pro/a.parquet", people("1"))
    place.put("plan=basic/a.parquet", people("1"))
    with closing(open_source(place.address, kinds=KINDS, source_format=PLAN, processed=())) as source:
        assert sorted(row["plan"] for row in source.read_table().table.to_pylist()) == ["basic", "pro"]


def test_partition_folders_count_only_where_they_are_declared(place: Folder) -> None:
    place.put("plan=pro/a.parquet", people("1", plan=["basic"]))
    with closing(open_source(place.address, kinds=KINDS)) as source:
        assert source.read_table().table["plan"].to_pylist() == ["basic"]
    with closing(open_source(place.address, kinds=KINDS, source_format=PLAN)) as source, pytest.raises(Rejected, match="in the file and in the name"):  # fmt: skip
        source.read_table()


def test_an_undeclared_partition_folder_is_named_with_the_missing_column(place: Folder) -> None:
    place.put("plan=pro/a.parquet", people("1"))
    with closing(open_source(place.address, kinds=KINDS)) as source, pytest.raises(Rejected, match=r"data.source.partitions: \[plan\]"):  # fmt: skip
        source.read_table()


def test_a_file_outside_the_declared_partition_folders_is_refused(tmp_path: Path) -> None:
    place = Folder(tmp_path)
    place.put("plan=x/a.parquet", people("1"))
    place.put("a.parquet", people("2"))
    with pytest.raises(Rejected, match="0 of its folders are named plan="):
        open_source(place.address, kinds=KINDS, source_format=PLAN)
    (tmp_path / "in" / "a.parquet").unlink()
    place.put("plan=x/plan=y/b.parquet", people("2"))
    with pytest.raises(Rejected, match="2 of its folders are named plan="):
        open_source(place.address, kinds=KINDS, source_format=PLAN)


def test_the_folders_below_the_source_come_before_those_that_it_names(tmp_path: Path) -> None:
    place = Folder(tmp_path / "plan=team")
    place.put("plan=x/a.parquet", people("1"))
    for source in (place.address, f"{place.address}/*/*.parquet", f"{place.address}/plan=x", f"{place.address}/plan=x/a.parquet"):  # fmt: skip
        if source == place.address or "*" in source:
            assert open_source(source, kinds=KINDS, source_format=PLAN).read_table().table["plan"].to_pylist() == ["x"]
        else:
            with pytest.raises(Rejected, match="2 of its folders"):  # both are named: nothing says which is meant
                open_source(source, kinds=KINDS, source_format=PLAN)


@pytest.mark.parametrize(("folder", "problem"), [("age=old", "not a number"), ("age=%FF", "not UTF-8")])
def test_a_folder_whose_value_does_not_fit_its_column_is_refused(tmp_path: Path, folder: str, problem: str) -> None:
    path = tmp_path / folder / "a.csv"
    path.parent.mkdir()
    path.write_text("id,plan,vip\n1,x,0\n")
    with pytest.raises(Rejected, match=problem):
        open_source(str(path), kinds=KINDS, source_format=SourceFormat(partitions=("age",))).read_table()

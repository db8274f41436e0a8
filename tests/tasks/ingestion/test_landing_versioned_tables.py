"""Delta and Iceberg tables as sources: the newest version first, then what later versions added; changes are refused."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog.sql import SqlCatalog

from blocks.common.errors import NotFound, Rejected
from blocks.lake.fake import FakeLake
from blocks.sources.secret_addresses import resolve_address
from blocks.sources.versioned_tables import ingested_versions
from tasks.ingestion.datasets import dataset_snapshots
from tasks.ingestion.landing import ingest_rows, open_source_rows
from tasks.shared.records import IngestResult
from tasks.shared.rules.model.data import DataSpec, column_kinds
from tests.fixtures.s3_server import s3_with_bucket
from tests.fixtures.sources import ANYWHERE, open_source

HOUSES = DataSpec(dataset="houses", entity="house", target="price", features={"rooms": "number", "street": "category"})
KINDS = column_kinds(HOUSES)


@pytest.fixture(autouse=True)
def no_artifacts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send no artifacts: these tests have no Prefect server."""
    monkeypatch.setattr("tasks.ingestion.landing.create_markdown_artifact", lambda **_: None)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_with_bucket("tables") as name:
        yield name


def houses(first: int, count: int = 20) -> pa.Table:
    numbers = range(first, first + count)
    return pa.table(
        {
            "house": [f"h{n}" for n in numbers],
            "rooms": pa.array([n % 7 for n in numbers], pa.int32()),
            "street": [("Elm Road", "Königsallee/2", None)[n % 3] for n in numbers],
            "price": [1000.0 + n for n in numbers],
        }
    )


class DeltaHouses:
    """A Delta table, partitioned by the street, in a folder; a copy of it in S3 if a bucket is given."""

    library = "Delta"

    def __init__(self, path: Path, bucket: str = "") -> None:
        self._path, self._bucket, self._prefix = path / "table", bucket, uuid4().hex
        self.address = f"delta:s3://{bucket}/{self._prefix}" if bucket else f"delta:{self._path}"

    def append(self, rows: pa.Table) -> None:
        write_deltalake(self._path, rows, mode="append", partition_by=["street"], schema_mode="merge")
        self._publish()

    def delete(self) -> None:
        DeltaTable(self._path).delete("house = 'h1'")
        self._publish()

    def compact(self) -> None:
        DeltaTable(self._path).optimize.compact()
        self._publish()

    def _publish(self) -> None:
        for file in self._path.rglob("*") if self._bucket else ():
            if file.is_file():
                key = f"{self._prefix}/{file.relative_to(self._path)}"
                boto3.client("s3").upload_file(str(file), self._bucket, key)


class IcebergHouses:
    """An Iceberg table of a catalog in SQLite."""

    library = "Iceberg"

    def __init__(self, path: Path, bucket: str = "") -> None:
        warehouse = f"s3://{bucket}/{uuid4().hex}" if bucket else f"file://{path}/warehouse"
        self._catalog = SqlCatalog("here", uri=f"sqlite:///{path}/catalog.db", warehouse=warehouse, **_endpoint(bucket))
        self._catalog.create_namespace("crm")
        self._table: Any = None

    @property
    def address(self) -> str:
        return f"iceberg:{self._table.metadata_location}"

    def append(self, rows: pa.Table) -> None:
        self._table = self._table or self._catalog.create_table("crm.houses", schema=rows.schema)
        with self._table.update_schema() as update:
            update.union_by_name(rows.schema)
        self._table.append(rows)

    def delete(self) -> None:
        self._table.delete("house == 'h1'")

    def compact(self) -> None:
        pytest.skip("pyiceberg has no compaction")


def _endpoint(bucket: str) -> dict[str, str]:
    from blocks.sources.iceberg_tables import pyiceberg_properties

    return pyiceberg_properties() if bucket else {}


Made = Callable[..., Any]


@pytest.fixture(params=[DeltaHouses, IcebergHouses], ids=["delta", "iceberg"])
def kind(request: pytest.FixtureRequest) -> Made:
    return request.param


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def table(request: pytest.FixtureRequest, kind: Made, tmp_path: Path) -> Any:
    return kind(tmp_path, request.getfixturevalue("bucket") if request.param == "s3" else "")


def land(lake: FakeLake, source: str, folder: Path) -> IngestResult:
    with closing(
        open_source_rows(lake, HOUSES.ingest_schema(), source, "", "", "", folder / "scratch", ANYWHERE)
    ) as rows:
        return ingest_rows(lake, HOUSES, rows, scratch=folder / "scratch")


def landed(lake: FakeLake) -> list[dict[str, Any]]:
    rows = lake.read(lake.as_of("houses"), columns=list(KINDS)).to_pylist()
    return sorted(rows, key=lambda row: int(row["house"][1:]))


def expected(*tables: pa.Table) -> Sequence[dict[str, Any]]:
    rows = pa.concat_tables(tables).to_pylist()
    return [{**row, "rooms": float(row["rooms"])} for row in rows]


def test_the_newest_version_lands_first_and_then_what_later_versions_added(table: Any, tmp_path: Path) -> None:
    lake = FakeLake()
    table.append(houses(0))
    table.append(houses(20))
    assert land(lake, table.address, tmp_path).accepted == 40
    assert landed(lake) == expected(houses(0), houses(20))
    table.append(houses(40))
    table.append(houses(60))
    more = land(lake, table.address, tmp_path)
    assert (more.rows_in, more.accepted) == (40, 40), "the old rows are not read again"
    assert landed(lake) == expected(*map(houses, (0, 20, 40, 60)))
    assert not land(lake, table.address, tmp_path).appended
    notes = dataset_snapshots(lake, "houses")[-1].notes
    assert notes["table"].startswith(table.library.lower())
    assert int(notes["table version"]) >= 3
    assert notes["table version time"].startswith("20")


PARTITIONS = {
    "moment": ("time", datetime(2026, 1, 1, 8, tzinfo=UTC), pa.timestamp("us", "UTC")),
    "clock": ("text", datetime(2026, 1, 1, 8), pa.timestamp("us")),
    "day": ("text", date(2026, 1, 31), pa.date32()),
    "size": ("text", 1.0, pa.float64()),
    "large": ("text", 1e20, pa.float64()),
    "small": ("text", 0.1, pa.float32()),
    "cash": ("text", Decimal("1.50"), pa.decimal128(9, 2)),
    "yes": ("text", True, pa.bool_()),
    "count": ("number", 7, pa.int32()),
    "name": ("text", "Königsallee/2", pa.string()),
    "raw": ("text", b"abc", pa.binary()),
    "none": ("text", None, pa.date32()),
}


@pytest.mark.parametrize("column", PARTITIONS)
def test_a_value_of_a_partition_has_one_form_in_the_first_load_and_in_later_ones(tmp_path: Path, column: str) -> None:
    kind, value, written = PARTITIONS[column]
    kind = "category" if kind == "text" else kind

    def append(*ids: str) -> None:
        rows = pa.table({"id": [*ids], column: pa.array([value] * len(ids), written)})
        write_deltalake(tmp_path / "t", rows, mode="append", partition_by=[column])

    def read(ingested: dict[str, str]) -> tuple[list[dict[str, Any]], Mapping[str, str]]:
        with closing(open_source(f"delta:{tmp_path}/t", kinds={"id": "key", column: kind}, ingested=ingested)) as rows:
            found = rows.read_table()
            assert found.unreadable_rows == ()
            return found.table.to_pylist(), rows.snapshot_notes()

    append("a")
    (first,), notes = read({})
    append("b")
    (second,), _ = read(ingested_versions([notes]))
    assert (first["id"], second["id"]) == ("a", "b")
    assert first[column] == second[column]
    assert (first[column] is None) == (value is None)
    if kind == "time":
        assert first[column] == value


def test_a_version_that_removed_rows_refuses_the_load_and_says_so(table: Any, tmp_path: Path) -> None:
    lake = FakeLake()
    table.append(houses(0))
    land(lake, table.address, tmp_path)
    table.delete()
    table.append(houses(20))
    with pytest.raises(Rejected, match=r"(?i)removed or changed rows \((delete|overwrite)\)"):
        land(lake, table.address, tmp_path)
    fresh = FakeLake()
    assert land(fresh, table.address, tmp_path).accepted == 39, "a new data set has the rows that the table has now"


def test_rows_that_a_compaction_moved_do_not_land_twice(table: Any, tmp_path: Path) -> None:
    lake = FakeLake()
    table.append(houses(0))
    land(lake, table.address, tmp_path)
    table.append(houses(20))
    table.compact()
    assert land(lake, table.address, tmp_path).accepted == 20
    assert len(landed(lake)) == 40


def test_a_column_that_came_later_is_null_in_older_files(table: Any, tmp_path: Path) -> None:
    table.append(houses(0, 2).drop_columns(["rooms"]))
    table.append(houses(2, 2))
    with closing(open_source(table.address, kinds=KINDS)) as source:
        found = {row["house"]: row["rooms"] for row in source.read_table().table.to_pylist()}
    assert found == {"h0": None, "h1": None, "h2": 2.0, "h3": 3.0}


def test_a_column_that_the_table_lacks_is_named(table: Any, tmp_path: Path) -> None:
    table.append(houses(0, 2))
    with pytest.raises(Rejected, match="did you mean 'rooms'"):
        open_source(table.address, kinds={**KINDS, "room": "number"})


def test_no_table_is_there_is_not_found(kind: Made, tmp_path: Path) -> None:
    address = f"delta:{tmp_path}/none" if kind is DeltaHouses else f"iceberg:{tmp_path}/none.metadata.json"
    with pytest.raises(NotFound):
        open_source(address, kinds=KINDS)
    with pytest.raises(Rejected, match="Leave the query empty"):
        open_source(address, query="SELECT 1", kinds=KINDS)


def test_an_iceberg_table_is_found_by_its_catalog(tmp_path: Path) -> None:
    table = IcebergHouses(tmp_path)
    table.append(houses(0, 5))
    address = f"iceberg:sqlite:///{tmp_path}/catalog.db#here/crm.houses"
    assert open_source(address, kinds=KINDS).read_table().table.num_rows == 5
    with pytest.raises(NotFound, match="no such Iceberg table"):
        open_source(f"iceberg:sqlite:///{tmp_path}/catalog.db#here/crm.flats", kinds=KINDS)


@pytest.mark.parametrize("ending", ["", "/*.parquet", "/*/*.parquet"])
def test_the_files_of_a_table_are_not_read_as_a_folder(tmp_path: Path, ending: str) -> None:
    table = DeltaHouses(tmp_path)
    table.append(houses(0, 5))
    with pytest.raises(Rejected, match="Give delta:"):
        open_source(table.address.removeprefix("delta:") + ending, kinds=KINDS)


def test_the_files_of_an_iceberg_table_are_not_read_as_a_folder(tmp_path: Path) -> None:
    IcebergHouses(tmp_path).append(houses(0, 5))
    with pytest.raises(Rejected, match="Iceberg table"):
        open_source(f"{tmp_path}/warehouse", kinds=KINDS)


def test_the_password_of_a_catalogs_database_is_refused_as_that_of_a_database() -> None:
    with pytest.raises(Rejected, match="contains a password"):
        resolve_address("iceberg:postgresql://reader:secret@host/catalog#crm.houses")


@pytest.mark.slow
def test_the_objects_of_a_table_are_not_read_as_a_prefix(tmp_path: Path, bucket: str) -> None:
    table = DeltaHouses(tmp_path, bucket)
    table.append(houses(0, 5))
    with pytest.raises(Rejected, match="Give delta:s3://"):
        open_source(table.address.removeprefix("delta:") + "/", kinds=KINDS)


def test_a_log_that_was_cleaned_or_a_file_that_was_removed_is_named(tmp_path: Path) -> None:
    table, lake = DeltaHouses(tmp_path), FakeLake()
    table.append(houses(0))
    land(lake, table.address, tmp_path)
    table.append(houses(20))
    DeltaTable(tmp_path / "table").create_checkpoint()
    log = tmp_path / "table" / "_delta_log"
    (log / f"{1:020d}.json").rename(tmp_path / "one.json")
    with pytest.raises(Rejected, match="log entry of version 1 is gone"):
        land(lake, table.address, tmp_path)
    (tmp_path / "one.json").rename(log / f"{1:020d}.json")
    for file in (tmp_path / "table").rglob("*.parquet"):
        if "_delta_log" not in file.parts:
            file.unlink()
    with pytest.raises(Rejected, match="is gone"):
        land(lake, table.address, tmp_path)


def test_a_table_that_was_made_again_is_read_from_its_start(tmp_path: Path) -> None:
    table, lake = DeltaHouses(tmp_path), FakeLake()
    table.append(houses(0))
    land(lake, table.address, tmp_path)
    shutil.rmtree(tmp_path / "table")
    table.append(houses(100))
    assert land(lake, table.address, tmp_path).accepted == 20


def test_a_feature_that_changes_what_files_mean_is_refused_by_name(tmp_path: Path) -> None:
    table = DeltaHouses(tmp_path)
    table.append(houses(0, 5))
    first = tmp_path / "table" / "_delta_log" / f"{0:020d}.json"
    text = first.read_text()
    first.write_text(text.replace('"configuration":{}', '"configuration":{"delta.columnMapping.mode":"name"}'))
    with pytest.raises(Rejected, match="column mapping"):
        open_source(table.address, kinds=KINDS)

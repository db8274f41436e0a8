"""The figures of docs/decisions/0001-lake-format.md: `python -m tests.benchmarks.lake_formats`.

Options: `[--rows N] [--snapshots N] [--formats ours,delta,iceberg,ducklake]`. Logs over the same Parquet files (sorted
by bucket, with the SHA-256 of each): our own log, Delta Lake's by `deltalake`, Iceberg's by `pyiceberg`, DuckLake's by
DuckDB's extension, which needs an environment of its own (see the decision). They do the same work in turn. The output is
a Markdown table.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ODD_TYPES = {
    "timestamp[ns]": pa.timestamp("ns"),
    "timestamp[s]": pa.timestamp("s"),
    "uint64": pa.uint64(),
    "uint8": pa.uint8(),
    "time64[us]": pa.time64("us"),
    "duration": pa.duration("us"),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
}


def rows_of(count: int, seed: int = 1) -> pa.Table:
    """Return rows of 20 columns and the bucket: 10 floats, 5 integers, 5 texts of few values."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {f"f{i}": rng.normal(size=count) for i in range(9)}
    columns |= {f"i{i}": rng.integers(0, 1_000, count) for i in range(5)}
    words = np.array(["alpha", "beta", "gamma", "delta", "epsilon"])
    columns |= {f"t{i}": words[rng.integers(0, 5, count)] for i in range(5)}
    columns["id"] = np.arange(count) + seed * 10_000_000
    return pa.table({**columns, "_bucket": rng.integers(0, 10_000, count).astype(np.int32)})


class Ours:
    """The lake of this repository."""

    name: ClassVar[str] = "our log"

    def __init__(self, root: Path) -> None:
        from blocks.lake.local import LocalLake  # DuckLake's environment does not have what it imports

        self.lake, self.new = LocalLake(root=root), LocalLake

    def append(self, table: pa.Table, key: str) -> None:
        self.lake.append("t", table, source="bench", key=key, at=datetime.now(UTC))

    def as_of(self) -> tuple[str, list[str]]:
        lake = self.new(root=self.lake.root)
        read = lake.as_of("t")
        return read.digest, [str(f) for s in read.snapshots for f in s.files]

    def fix(self) -> str:
        return self.new(root=self.lake.root).as_of("t").digest

    def metadata_files(self) -> list[Path]:
        return [p for p in self.lake.root.glob("t/_log/*") if p.is_file()]

    def full(self) -> list[str]:
        return list(self.lake.files(self.lake.as_of("t")))


class Delta:
    """Delta Lake's log over our files: layout, SHA-256 (in the file's name) and key are ours."""

    name: ClassVar[str] = "Delta, our files"

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()

    def append(self, table: pa.Table, key: str) -> None:
        from deltalake import CommitProperties, DeltaTable, Transaction
        from deltalake.transaction import AddAction, create_table_with_add_actions

        adds = [
            AddAction(
                path.name, path.stat().st_size, {}, time.time_ns() // 1_000_000, True, json.dumps({"numRecords": n})
            )
            for path, n in write_layout(table, self.root, key)
        ]
        properties = CommitProperties(custom_metadata={"key": key}, app_transactions=[Transaction(key, 1)])
        if not DeltaTable.is_deltatable(str(self.root)):
            create_table_with_add_actions(str(self.root), delta_schema(table), adds, commit_properties=properties)
            return
        there = DeltaTable(str(self.root))
        if there.transaction_version(key) is None:
            there.create_write_transaction(adds, "append", delta_schema(table), commit_properties=properties)

    def as_of(self) -> tuple[str, list[str]]:
        from deltalake import DeltaTable

        table = DeltaTable(str(self.root))
        return str(table.version()), sorted(table.file_uris())

    def fix(self) -> str:
        from deltalake import DeltaTable

        return str(DeltaTable(str(self.root), without_files=True).version())

    def metadata_files(self) -> list[Path]:
        return [p for p in (self.root / "_delta_log").iterdir() if p.is_file()]

    def full(self) -> list[str]:
        return self.as_of()[1]


class Iceberg:
    """Iceberg over our files (`add_files`), with the catalog in SQLite; without a catalog it has no commit."""

    name: ClassVar[str] = "Iceberg, our files"

    def __init__(self, root: Path) -> None:
        from pyiceberg.catalog.sql import SqlCatalog

        self.root = root
        root.mkdir()
        self.open = lambda: SqlCatalog("c", uri=f"sqlite:///{root}/catalog.db", warehouse=f"file://{root}")
        self.open().create_namespace("n")

    def append(self, table: pa.Table, key: str) -> None:
        from pyiceberg.exceptions import NoSuchTableError

        files = [str(path) for path, _ in write_layout(table, self.root, key)]
        catalog = self.open()
        try:
            there = catalog.load_table("n.t")
        except NoSuchTableError:
            there = catalog.create_table("n.t", schema=table.schema)
        there.add_files(files, snapshot_properties={"key": key}, check_duplicate_files=False)

    def as_of(self) -> tuple[str, list[str]]:
        table = self.open().load_table("n.t")
        return str(table.current_snapshot().snapshot_id), [task.file.file_path for task in table.scan().plan_files()]

    def fix(self) -> str:
        return str(self.open().load_table("n.t").current_snapshot().snapshot_id)

    def metadata_files(self) -> list[Path]:
        return [p for p in self.root.rglob("metadata/*") if p.is_file()]

    def full(self) -> list[str]:
        return [path.removeprefix("file://") for path in self.as_of()[1]]


class DuckLake:
    """DuckLake over our files (`ducklake_add_data_files`), with the catalog in SQLite: a DuckDB file has one client."""

    name: ClassVar[str] = "DuckLake, our files"

    def __init__(self, root: Path) -> None:
        self.root = root
        self._shared: duckdb.DuckDBPyConnection | None = None
        root.mkdir()

    def open(self) -> duckdb.DuckDBPyConnection:
        """Return a connection with the lake attached: loading the extensions took a second, and is done once."""
        if self._shared is None:
            self._shared = duckdb.connect()
            for extension in ("ducklake", "sqlite_scanner"):
                self._shared.execute(f"LOAD {extension}")
            options = f"DATA_PATH '{self.root}/data/', META_JOURNAL_MODE 'WAL', META_BUSY_TIMEOUT 5000"
            self._shared.execute(f"ATTACH 'ducklake:sqlite:{self.root}/catalog.db' AS lake ({options})")
        return self._shared.cursor()

    def append(self, table: pa.Table, key: str) -> None:
        (data := self.root / "data").mkdir(exist_ok=True)
        files = [str(path) for path, _ in write_layout(table, data, f"{key}-{time.time_ns()}")]
        with self.open() as connection:
            connection.execute(f"CREATE TABLE IF NOT EXISTS lake.t AS FROM read_parquet('{files[0]}') LIMIT 0")
            connection.execute("BEGIN")
            known = "SELECT count(*) FROM lake.snapshots() WHERE commit_extra_info = ?"
            if connection.execute(known, [key]).fetchall()[0][0]:
                connection.execute("ROLLBACK")
                return
            for file in files:
                options = "allow_missing => true, ignore_extra_columns => false"
                connection.execute(f"CALL ducklake_add_data_files('lake', 't', '{file}', {options})")
            connection.execute(f"CALL lake.set_commit_message('bench', '', extra_info => '{key}')")
            connection.execute("COMMIT")

    def as_of(self) -> tuple[str, list[str]]:
        with self.open() as connection:
            newest = connection.execute("SELECT max(snapshot_id) FROM lake.snapshots()").fetchall()[0][0]
            files = connection.execute("SELECT data_file FROM ducklake_list_files('lake', 't')").fetchall()
        return str(newest), sorted(file for (file,) in files)

    def fix(self) -> str:
        with self.open() as connection:
            return str(connection.execute("SELECT max(snapshot_id) FROM lake.snapshots()").fetchall()[0][0])

    def metadata_files(self) -> list[Path]:
        return [self.root / "catalog.db"]

    def full(self) -> list[str]:
        return self.as_of()[1]


FORMATS: dict[str, type] = {"ours": Ours, "delta": Delta, "iceberg": Iceberg, "ducklake": DuckLake}


def delta_schema(table: pa.Table) -> Any:
    """Return the schema in Delta's terms."""
    from deltalake import Schema

    return Schema.from_arrow(table.schema)


def write_layout(table: pa.Table, root: Path, key: str) -> list[tuple[Path, int]]:
    """Write the table in the lake's layout, with fsync, and return (file, rows)."""
    import hashlib

    table = table.sort_by("_bucket")
    edges = [0, 100, *range(1_000, 10_001, 1_000)] if table.num_rows > 100_000 else [0, 10_000]
    buckets, written = table["_bucket"].to_numpy(), []
    for low, high in pairwise(edges):
        a, b = np.searchsorted(buckets, [low, high])
        if a == b:
            continue
        path = root / f"{key}-{low:04d}.parquet"
        pq.write_table(table.slice(a, b - a), path, row_group_size=50_000, compression="snappy")
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        written.append((path.rename(path.with_name(f"{key}-{low:04d}-{digest}.parquet")), int(b - a)))
    return written


def seconds(work: Callable[[], Any], times: int = 5) -> float:
    """Return the median seconds of the work after one warm-up."""
    work()
    spent = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begun)
    return statistics.median(spent)


def query(files: list[str], where: str = "") -> float:
    """Return the seconds of an aggregate over all columns by DuckDB on 2 threads."""
    connection = duckdb.connect(config={"threads": 2})
    sums = ", ".join(f"sum({c})" for c in [*(f"f{i}" for i in range(9)), *(f"i{i}" for i in range(5)), "id"])
    words = ", ".join(f"max(t{i})" for i in range(5))
    statement = f"SELECT {sums}, {words} FROM read_parquet(?, union_by_name=true, hive_partitioning=false) {where}"
    return seconds(lambda: connection.execute(statement, [files]).fetchall())


def sizes(kind: type, base: Path, rows: int) -> dict[str, str]:
    """Append once; read all rows and 1 % with DuckDB from the files that the format lists."""
    kept = kind(base / "size")
    table = rows_of(rows)
    begun = time.perf_counter()
    kept.append(table, "k")
    took = time.perf_counter() - begun
    planned = seconds(kept.full)
    files = kept.full()
    return {
        f"append of {rows:,} rows, s": f"{took:.2f}",
        "list of files (checksums known), ms": f"{planned * 1e3:.1f}",
        "full read by DuckDB, s": f"{query(files):.3f}",
        "1 % tier by DuckDB, s": f"{query(files, 'WHERE _bucket < 100'):.3f}",
    }


def metadata(kind: type, base: Path, snapshots: int) -> dict[str, str]:
    """Compare a fixed read of many snapshots with one of a single snapshot, each newly opened."""
    one, many = kind(base / "one"), kind(base / "many")
    one.append(rows_of(50), "k")
    begun = time.perf_counter()
    for number in range(snapshots):
        many.append(rows_of(50, number + 1), f"k{number}")
    took = (time.perf_counter() - begun) / snapshots
    first, last = seconds(one.fix, 9), seconds(many.fix, 9)
    return {
        f"append of 50 rows, mean of {snapshots}, ms": f"{took * 1e3:.1f}",
        "fix a read of 1 snapshot, ms": f"{first * 1e3:.2f}",
        f"fix a read of {snapshots} snapshots, ms": f"{last * 1e3:.2f} ({last / first:.1f} x)",
        f"list of the files of {snapshots} snapshots, ms": f"{seconds(many.as_of, 3) * 1e3:.1f}",
    }


def writers(kind: type, base: Path) -> dict[str, str]:
    """Append 10 times in each of 8 threads; then append under one key in 8 threads."""
    kept = kind(base / "writers")
    kept.append(rows_of(50), "first")

    def attempt(key: str) -> str:
        try:
            kept.append(rows_of(50), key)
        except Exception as error:  # the exception of the library is the result
            return type(error).__name__
        return ""

    begun = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        failed = [e for e in pool.map(attempt, [f"w{i}" for i in range(80)]) if e]
    took = time.perf_counter() - begun
    landed = len(kept.as_of()[1])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: attempt("same"), range(8)))
    once = len(kept.as_of()[1]) - landed
    return {
        "80 appends by 8 writers": f"{landed - 1} landed, {len(failed)} failed {sorted(set(failed))}, {took:.1f} s",
        "one key by 8 writers at once": f"landed {once} times",
    }


def damage(kind: type, base: Path) -> dict[str, str]:
    """Flip one bit in a random byte of a random metadata file; count wrong results and undetected changes."""
    kept = kind(base / "damage")
    for number in range(12):
        kept.append(rows_of(50), f"k{number}")
    good, chance, noticed, wrong, same = kept.as_of(), random.Random(7), 0, 0, 0
    files = sorted(kept.metadata_files())
    for _ in range(300):
        path = chance.choice(files)
        data = bytearray(path.read_bytes())
        at = chance.randrange(len(data))
        path.write_bytes(bytes(data[:at]) + bytes([data[at] ^ 1]) + bytes(data[at + 1 :]))
        try:
            found = kept.as_of()
            wrong, same = wrong + (found != good), same + (found == good)
        except Exception:
            noticed += 1
        finally:
            path.write_bytes(data)
    return {"300 flipped bits in the metadata": f"{noticed} noticed, {wrong} wrong answers, {same} no effect"}


def types(kind: type, base: Path) -> dict[str, str]:
    """Return which types a table may not have."""
    refused = []
    for number, (name, kind_of) in enumerate(ODD_TYPES.items()):
        kept = kind(base / f"type{number}")
        column = pa.array([1, 2]).cast(kind_of) if name != "dictionary" else pa.array(["a", "b"]).dictionary_encode()
        try:
            kept.append(pa.table({"x": column, "_bucket": pa.array([1, 2], pa.int32())}), "k")
            kept.as_of()
        except Exception:
            refused.append(name)
    return {"Arrow types refused": ", ".join(refused) or "none"}


def main() -> None:
    """Print one column for each format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--snapshots", type=int, default=1_000)
    parser.add_argument("--formats", default="ours,delta,iceberg")
    chosen = parser.parse_args()
    columns: dict[str, dict[str, str]] = {}
    for kind in map(FORMATS.__getitem__, chosen.formats.split(",")):
        base = Path(tempfile.mkdtemp(prefix="lake-formats-"))
        snapshots = min(chosen.snapshots, 200) if kind in (Iceberg, DuckLake) else chosen.snapshots  # slow
        found: dict[str, str] = {}
        try:
            for part in (
                lambda k=kind, b=base: sizes(k, b, chosen.rows),
                lambda k=kind, b=base, n=snapshots: metadata(k, b, n),
                lambda k=kind, b=base: writers(k, b),
                lambda k=kind, b=base: damage(k, b),
                lambda k=kind, b=base: types(k, b),
            ):
                found |= part()
                print(kind.name, found, flush=True)
        finally:
            shutil.rmtree(base)
        columns[kind.name] = found
    print("| | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
    for number in range(len(next(iter(columns.values())))):
        cells = [list(found.items())[number] for found in columns.values()]
        print(f"| {cells[0][0]} | " + " | ".join(value for _, value in cells) + " |")


if __name__ == "__main__":
    main()

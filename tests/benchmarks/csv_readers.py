"""CSV readers on faulty files: `python -m tests.benchmarks.csv_readers` prints what they return, as Markdown.

The files of `DIALECT_FILES` are written in a dialect that is declared to our reader and given to DuckDB's. Each file is small and its rows are known. A reader is right when it returns exactly the complete rows, or refuses an
ambiguous file. A reader refuses when it loads nothing although some rows are complete. Otherwise it is silently
wrong. Each fault is tried again amid 60,000 complete rows, because some readers inspect the first rows more closely.
"""

import gzip
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pcsv

from blocks.sources import SourceFormat
from tests.fixtures.sources import open_source

NAMES = ["id", "name", "amount"]
HEAD = HEAD_LINE = "id,name,amount\n"
ANN, BOB, CY = ("1", "ann", "5"), ("2", "bob", "6"), ("3", "cy", "7")
ROWS = 1_000_000

Rows = list[tuple[str, ...]]

GERMAN = SourceFormat(";", ",", ".")
SEMICOLON_HEAD = "id;name;amount\n"
MANY = "".join(f"{n};zed;9\n" for n in range(30_000))
DIALECT_FILES: dict[str, tuple[str | bytes, SourceFormat, str, Rows | None]] = {
    "semicolons, decimal comma": (SEMICOLON_HEAD + "1;ann;5,5\n", GERMAN, "delim = ';'", [("1", "ann", "5.5")]),
    "groups of thousands": (SEMICOLON_HEAD + "1;ann;1.234,5\n", GERMAN, "delim = ';'", [("1", "ann", "1234.5")]),
    "a point for a comma": (SEMICOLON_HEAD + "1;ann;1.5\n2;bob;2,5\n", GERMAN, "delim = ';'", [("2", "bob", "2.5")]),
    "a point for a comma, amid": (SEMICOLON_HEAD + MANY + "1;ann;1.5\n" + MANY, GERMAN, "delim = ';'", [("", "", "")]),
    "tabs": ("id\tname\tamount\n1\tann\t5\n", SourceFormat("\t"), "delim = '\t'", [("1", "ann", "5.0")]),
    "commas under semicolons": (HEAD_LINE + "1,ann,5\n", GERMAN, "delim = ';'", None),
    "Excel's sep line": ("sep=;\n" + SEMICOLON_HEAD + "1;ann;5\n", GERMAN, "delim = ';'", [("1", "ann", "5.0")]),
    "Latin-1": ((SEMICOLON_HEAD + "1;jörg;5\n").encode("latin-1"), SourceFormat(";", ",", ".", "latin-1"), "delim = ';', encoding = 'latin-1'", [("1", "jörg", "5.0")]),
    "UTF-8 as Latin-1": (SEMICOLON_HEAD + "1;jörg;5\n", SourceFormat(";", ",", ".", "latin-1"), "delim = ';', encoding = 'latin-1'", None),
    "Windows-1252 as Latin-1": ((SEMICOLON_HEAD + "1;5 €;5\n").encode("cp1252"), SourceFormat(";", ",", ".", "latin-1"), "delim = ';', encoding = 'latin-1'", None),
    "UTF-16": ((SEMICOLON_HEAD + "1;jörg;5\n").encode("utf-16"), SourceFormat(";", ",", ".", "utf-16"), "delim = ';', encoding = 'utf-16'", [("1", "jörg", "5.0")]),
    "half a gzip file": (gzip.compress((SEMICOLON_HEAD + MANY).encode())[:-20], GERMAN, "delim = ';', compression = 'gzip'", None),
    "a quote that never closes": (SEMICOLON_HEAD + MANY + '1;"ann;5\n' + MANY, GERMAN, "delim = ';'", None),
}  # fmt: skip
"""Files in a dialect, its declaration, what DuckDB is told, and the complete rows; `None` where a reader must refuse."""

FILES: dict[str, tuple[str | bytes, Rows | None]] = {
    "whole": (HEAD + "1,ann,5\n2,bob,6\n3,cy,7\n", [ANN, BOB, CY]),
    "a row with a field more": (HEAD + "1,ann,5\n2,bob,6,9\n3,cy,7\n", [ANN, CY]),
    "a row with a field less": (HEAD + "1,ann,5\n2,bob\n3,cy,7\n", [ANN, CY]),
    "cut off in the last row": (HEAD + "1,ann,5\n2,bob,6\n3,cy", [ANN, BOB]),
    "every row with a field more": (HEAD + "0,1,ann,5\n0,2,bob,6\n", []),
    "a quote that never closes": (HEAD + '1,ann,5\n2,"bob,6\n3,cy,7\n', None),
    "text after a closing quote": (HEAD + '1,ann,5\n2,"bo"b,6\n3,cy,7\n', [ANN, CY]),
    "two open quotes in two rows": (HEAD + '1,"ann,5\n2,bob",6\n3,"cy,7\n4,"dee,8\n', None),
    "a carriage return alone": (HEAD + "1,ann,5\r2,bob,6\n3,cy,7\n", [ANN, BOB, CY]),
    "Latin-1": ((HEAD + "1,jörg,5\n").encode("latin-1"), None),
    "UTF-16": ((HEAD + "1,ann,5\n").encode("utf-16"), None),
    "semicolons": ("id;name;amount\n1;ann;5\n", [ANN]),
    "a column twice": ("id,name,amount,name\n1,ann,5,eve\n", None),
    "a column missing": ("id,name\n1,ann\n", None),
    "a byte order mark": ("\ufeff" + HEAD + "1,ann,5\n", [ANN]),
    "a blank line": (HEAD + "1,ann,5\n\n3,cy,7\n", [ANN, CY]),
    "a line end in quotes": (HEAD + '1,"an\nn",5\n', [("1", "an\nn", "5")]),
    "a name that is NA": (HEAD + "1,NA,5\n", [("1", "NA", "5")]),
    "an id with zeros before it": (HEAD + "007,ann,5\n", [("007", "ann", "5")]),
    "an id of 20 digits": (
        HEAD + "12345678901234567891,ann,5\n,bob,6\n",
        [("12345678901234567891", "ann", "5"), ("", *BOB[1:])],
    ),
}
"""Files, and the complete rows of each; None where the file is ambiguous."""


def rows_of(table: pa.Table) -> Rows:
    """Return the rows of the expected columns as text, null as "".

    Raises:
        KeyError: a column is missing, or is there twice.
    """
    return [tuple("" if row[name] is None else str(row[name]) for name in NAMES) for row in table.to_pylist()]


def ours(path: Path) -> Rows:
    """Read with Ratchet's sources."""
    return rows_of(open_source(str(path), kinds=dict.fromkeys(NAMES, "text")).read_table().table)


def pandas_as_it_comes(path: Path) -> Rows:
    """Read with pandas and its defaults."""
    return _of_frame(pd.read_csv(path))


def pandas_as_text(path: Path) -> Rows:
    """Read with pandas, all columns as text, no value read as null."""
    return _of_frame(pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False))


def arrow_as_it_comes(path: Path) -> Rows:
    """Read with PyArrow and its defaults."""
    return rows_of(pcsv.read_csv(path))


def arrow_as_text(path: Path) -> Rows:
    """Read with PyArrow, all columns as text, with values of several lines."""
    text = pcsv.ConvertOptions(column_types=dict.fromkeys(NAMES, pa.string()))
    return rows_of(pcsv.read_csv(path, parse_options=pcsv.ParseOptions(newlines_in_values=True), convert_options=text))


def duckdb_as_it_comes(path: Path) -> Rows:
    """Read with DuckDB, which detects the dialect."""
    return rows_of(duckdb.sql(f"FROM read_csv('{path}')").to_arrow_table())


def duckdb_as_text(path: Path) -> Rows:
    """Read with DuckDB, all columns as text, in strict mode, with the dialect given."""
    told = "all_varchar = true, header = true, delim = ',', quote = '\"', escape = '\"', strict_mode = true"
    return rows_of(duckdb.sql(f"FROM read_csv('{path}', {told})").to_arrow_table())


def duckdb_with_rejects(path: Path) -> Rows:
    """Read with DuckDB in the same way; rows that it cannot read go into a separate table."""
    told = "all_varchar = true, header = true, delim = ',', quote = '\"', escape = '\"', strict_mode = true"
    with duckdb.connect() as connection:
        return rows_of(connection.sql(f"FROM read_csv('{path}', {told}, store_rejects = true)").to_arrow_table())


READERS: dict[str, Callable[[Path], Rows]] = {
    "ours": ours,
    "pandas": pandas_as_it_comes,
    "pandas, all as text": pandas_as_text,
    "PyArrow": arrow_as_it_comes,
    "PyArrow, all as text": arrow_as_text,
    "DuckDB": duckdb_as_it_comes,
    "DuckDB, all as text, dialect given": duckdb_as_text,
    "the same, rejects stored": duckdb_with_rejects,
}


def verdict(read: Callable[[Path], Rows], path: Path, right: Rows | None) -> str:
    """Return what the reader made of the file: right, refused or wrong."""
    try:
        found = read(path)
    except Exception:
        return "right" if right is None else "refused"
    return "right" if found == (right or []) else "wrong"


def amid(whole: Rows) -> dict[str, tuple[str | bytes, Rows | None]]:
    """Return the files that have a fault in their rows, with these rows amid complete ones."""
    text = "".join(f"{','.join(row)}\n" for row in whole)
    return {
        f"{name}, amid": (f"{HEAD}{text}{content.removeprefix(HEAD)}{text}", right and [*whole, *right, *whole])
        for name, (content, right) in FILES.items()
        if isinstance(content, str) and content.startswith(HEAD) and content.endswith("\n") and right != []
    }


def seconds(work: Callable[[], Any]) -> float:
    """Return the seconds of the best of three runs."""
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def speed(folder: Path) -> None:
    """Print how long a file without a fault takes, read as text."""
    path, random = folder / "large.csv", np.random.default_rng(1)
    columns = {name: random.integers(0, 10**9, ROWS) for name in NAMES}
    pcsv.write_csv(pa.table(columns), path)
    text = dict.fromkeys(NAMES, pa.string())
    works: dict[str, Callable[[], Any]] = {
        "ours": lambda: open_source(str(path), kinds=dict.fromkeys(NAMES, "text")).read_table(),
        "pandas": lambda: pd.read_csv(path, dtype=str, keep_default_na=False),
        "PyArrow": lambda: pcsv.read_csv(path, convert_options=pcsv.ConvertOptions(column_types=text)),
        "DuckDB": lambda: duckdb.sql(f"FROM read_csv('{path}', all_varchar = true)").to_arrow_table(),
    }
    print(f"\n{ROWS:,} rows, {path.stat().st_size / 1e6:.0f} MB, all as text:")
    print("; ".join(f"{name} {seconds(work):.2f} s" for name, work in works.items()))


def dialects(folder: Path) -> None:
    """Print how our reader and DuckDB's, with rejects, read the files that are written in a dialect."""
    kinds = {"id": "text", "name": "text", "amount": "number"}
    verdicts: dict[str, list[str]] = {"ours": [], "DuckDB": []}
    for name, (content, declared, told, right) in DIALECT_FILES.items():
        path = folder / f"dialect.csv{'.gz' if 'gzip' in name else ''}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        whole = [(str(n), "zed", "9.0") for n in range(30_000)] * 2 if "amid" in name else right

        def with_ours(path: Path, declared: SourceFormat = declared) -> Rows:
            return rows_of(open_source(str(path), kinds=kinds, source_format=declared).read_table().table)

        def with_duckdb(path: Path, told: str = told, declared: SourceFormat = declared) -> Rows:
            types = "columns = {'id': 'VARCHAR', 'name': 'VARCHAR', 'amount': 'DOUBLE'}, header = true, quote = '\"'"
            marks = f"decimal_separator = '{declared.decimal}'"
            marks += f", thousands = '{declared.thousands}'" if declared.thousands else ""
            with duckdb.connect() as connection:
                statement = (
                    f"FROM read_csv('{path}', {types}, {told}, {marks}, strict_mode = true, store_rejects = true)"
                )
                return rows_of(connection.sql(statement).to_arrow_table())

        for reader, read in (("ours", with_ours), ("DuckDB", with_duckdb)):
            verdicts[reader].append(f"{name}: {verdict(read, path, whole)}")
    for reader, found in verdicts.items():
        counts = {word: sum(one.endswith(word) for one in found) for word in ("right", "refused", "wrong")}
        print(f"\ndialects, {reader}: {counts}; {'; '.join(one for one in found if not one.endswith('right'))}")


def dialect_speed(folder: Path) -> None:
    """Print the seconds of processors for a million rows with semicolons and decimal commas, in turns."""
    path, random = folder / "german.csv", np.random.default_rng(1)
    numbers = [[f"{value:.2f}".replace(".", ",") for value in random.normal(size=ROWS)] for _ in range(2)]
    path.write_text(
        "id;name;amount\n" + "".join(f"{n};{a};{b}\n" for n, (a, b) in enumerate(zip(*numbers, strict=True)))
    )
    kinds = {"id": "text", "name": "number", "amount": "number"}
    types = "columns = {'id': 'VARCHAR', 'name': 'DOUBLE', 'amount': 'DOUBLE'}, header = true, delim = ';'"
    works: dict[str, Callable[[], Any]] = {
        "ours": lambda: open_source(str(path), kinds=kinds, source_format=GERMAN).read_table(),
        "DuckDB": lambda: duckdb.sql(f"FROM read_csv('{path}', {types}, decimal_separator = ',')").to_arrow_table(),
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(5):
        for name, work in works.items():
            begun = time.process_time()
            work()
            taken[name].append(time.process_time() - begun)
    print("\ndialect, processor s: " + "; ".join(f"{name} {min(found):.2f}" for name, found in taken.items()))


def _of_frame(frame: pd.DataFrame) -> Rows:
    return [tuple("" if pd.isna(row[name]) else str(row[name]) for name in NAMES) for row in frame.to_dict("records")]


def main() -> None:
    """Print one line per reader: how many files it reads right, refuses and reads wrong, with their names."""
    files = FILES | amid([(str(number), "zed", "9") for number in range(30_000)])
    with tempfile.TemporaryDirectory() as folder:
        print(f"{len(files)} files\n")
        print("| reader | right | refused | silently wrong | which |\n|---|---|---|---|---|")
        for reader, read in READERS.items():
            verdicts = {}
            for name, (content, right) in files.items():
                path = Path(folder) / f"{name}.csv"
                path.write_bytes(content.encode() if isinstance(content, str) else content)
                verdicts[name] = verdict(read, path, right)
            counts = [list(verdicts.values()).count(word) for word in ("right", "refused", "wrong")]
            wrong = "; ".join(name for name, word in verdicts.items() if word == "wrong")
            print(f"| {reader} | {' | '.join(map(str, counts))} | {wrong or '–'} |")
        dialects(Path(folder))
        speed(Path(folder))
        dialect_speed(Path(folder))


if __name__ == "__main__":
    main()

"""Files as sources: which path is read how, and Parquet."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.errors import NotFound, Rejected, Unavailable
from blocks.sources.base import (
    SourceTable,
    check_kinds,
    check_names,
    not_empty,
    numbered,
    row_text,
    typed,
)
from blocks.sources.delimited import read_csv


def read_file(source: str, query: str, kinds: Mapping[str, str]) -> SourceTable:
    """Return the declared columns of a `.csv` or `.parquet` file; see `blocks.sources.read_source`."""
    check_kinds(kinds)
    if query:
        raise Rejected(f"{source!r} is a file; a query is for a database. Leave the query empty.")
    path = checked_path(source)
    readers = {".csv": read_csv, ".parquet": read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise Rejected(f"{path}: files that end in {path.suffix!r} cannot be read. Bring {' or '.join(readers)}.")
    try:
        return not_empty(reader(path, kinds))
    except PermissionError as cause:
        raise Rejected(f"{path}: this user may not read it. Give it the right to.") from cause
    except OSError as cause:
        raise Unavailable(f"{path}: it could not be read: {cause}. Try again.") from cause


def checked_path(source: str) -> Path:
    """Return the path of an existing file, named plainly: no `..`, no control characters."""
    if not source.strip() or not source.isprintable():
        raise Rejected(f"{source!r} is not a path. Remove line ends, NUL and other control characters.")
    path = Path(source)
    if ".." in path.parts:
        raise Rejected(f"{source!r} goes upwards with '..'. Name the file directly.")
    if not path.exists():
        raise NotFound(f"There is no file {source!r}. Check the path; it is read from the folder of the run.")
    if not path.is_file():
        raise Rejected(f"{source!r} is not a file but a folder or device. Name one file.")
    return path


def read_parquet(path: Path, kinds: Mapping[str, str]) -> SourceTable:
    """Return the declared columns of a Parquet file; page checksums are verified where the writer left them.

    Raises:
        Rejected: not a whole Parquet file, or columns that are missing or there twice.
    """
    if path.stat().st_size == 0:
        raise Rejected(f"{path}: the file is empty (0 bytes). Write it again.")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            ignored = check_names(file.schema_arrow.names, kinds, str(path))
            raw = file.read(columns=list(kinds))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as cause:
        raise Rejected(f"{path}: this is not a whole Parquet file ({cause}). Write it again.") from cause
    source = typed(raw, numbered("row", 1, raw.num_rows), kinds, row_text(raw))
    return replace(source, description=f"Parquet file {path}", ignored=ignored)

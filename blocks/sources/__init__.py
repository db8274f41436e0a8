"""Where rows come from: files, databases, S3 and DataFrames, read into one shape with nothing guessed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from blocks.sources.base import BrokenRow, Piece, Source, SourceTable
from blocks.sources.files import open_files
from blocks.sources.frames import FrameSource, from_frame
from blocks.sources.mended import AS_KEPT, MendedSource, is_quarantine
from blocks.sources.s3 import open_s3
from blocks.sources.sql import Since, open_query
from blocks.sources.taken import Taken

__all__ = [
    "BrokenRow",
    "FrameSource",
    "Piece",
    "Since",
    "Source",
    "SourceTable",
    "Taken",
    "from_frame",
    "open_source",
    "read_source",
]


def open_source(
    source: str,
    *,
    query: str = "",
    kinds: Mapping[str, str],
    since: Since | None = None,
    taken: Sequence[Taken] | None = None,
    scratch: Path | None = None,
    redrive: bool = False,
) -> Source:
    """Return the declared columns of a source, to be read in bounded memory; `close()` it afterwards.

    Args:
        source: a `.csv`, `.jsonl`, `.ndjson` or `.parquet` file, a folder of them, a glob (`in/*.parquet`),
            `s3://bucket/key`, `s3://bucket/prefix/`, or a SQLAlchemy URL such as `sqlite:///data/customers.db`.
        query: what to ask the database; empty for everything else.
        kinds: each declared column (entity, features, target) and what it is: number (float64), integer
            (int64), flag (int8, 0 or 1), category or text (string). Columns not declared are not read.
        since: for a database, the watermark column, and from which value on rows are new.
        taken: for a folder, a glob or a prefix, the files that have landed: they are passed over, and one that
            changed since is `Rejected`. None reads everything, and so does a file that is named itself.
        scratch: folder for what is fetched from S3; the system's own when None.
        redrive: whether this is a mended quarantine file, whose rows are the JSON in its column `row`. One
            without the columns of a quarantine is read like any other.

    Raises:
        NotFound: there is no such file, or none matches.
        Rejected: the source cannot be used as a whole; the message says where and what to do.
        Unavailable: the database or S3 does not answer.
    """
    if redrive:
        kept = open_source(source, query=query, kinds=AS_KEPT, scratch=scratch)
        if is_quarantine(kept):
            return MendedSource(kept, kinds)
        kept.close()
    if source.startswith("s3://"):
        return open_s3(source, query, kinds, scratch, taken)
    return open_query(source, query, kinds, since) if "://" in source else open_files(source, query, kinds, taken)


def read_source(source: str, *, query: str = "", kinds: Mapping[str, str]) -> SourceTable:
    """Read a source that fits into memory: the arguments and errors of `open_source`; `Rejected` without a row."""
    opened = open_source(source, query=query, kinds=kinds)
    try:
        return opened.table()
    finally:
        opened.close()

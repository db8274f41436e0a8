"""Where rows come from: files, databases and DataFrames, read into one shape with nothing guessed."""

from collections.abc import Mapping

from blocks.sources.base import BrokenRow, SourceTable
from blocks.sources.files import read_file
from blocks.sources.frames import from_frame
from blocks.sources.sql import read_sql

__all__ = ["BrokenRow", "SourceTable", "from_frame", "read_source"]


def read_source(source: str, *, query: str = "", kinds: Mapping[str, str]) -> SourceTable:
    """Read the declared columns of a `.csv` or `.parquet` file, or of a query on a SQLAlchemy URL.

    Args:
        source: a path, or a URL such as `sqlite:///data/customers.db`.
        query: what to ask the database; empty for a file.
        kinds: each declared column (entity, features, target) and what it is: number (float64), integer
            (int64), flag (int8, 0 or 1), category or text (string). Columns not declared are not read.

    Raises:
        NotFound: there is no such file.
        Rejected: the source cannot be used as a whole; the message says where and what to do.
        Unavailable: the database does not answer.
    """
    return read_sql(source, query, kinds) if "://" in source else read_file(source, query, kinds)

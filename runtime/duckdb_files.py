"""Parquet files in DuckDB's SQL: read by their literal names, and with the files' own columns alone."""

import re
from collections.abc import Sequence


def scan_sql(files: Sequence[str], *options: str) -> str:
    """Return SQL that reads exactly these Parquet files, in this order, as a table function.

    DuckDB interprets every name as a pattern, and folders `name=value/` above a file as columns that replace the file's
    own; both are switched off. `options` are further ones, such as `union_by_name = true`.
    """
    listed = ", ".join("'" + re.sub(r"([*?\[])", r"[\1]", str(file)).replace("'", "''") + "'" for file in files)
    return f"read_parquet([{listed}], {', '.join(('hive_partitioning = false', *options))})"

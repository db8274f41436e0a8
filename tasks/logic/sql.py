"""Text of SQL from names and values that are never trusted: DuckDB's dialect, which the engines translate."""


def name(identifier: str) -> str:
    """Return a column's name as SQL writes it: in double quotes, those inside doubled."""
    return '"' + identifier.replace('"', '""') + '"'


def text(value: str) -> str:
    """Return a text as SQL writes it: in single quotes, those inside doubled."""
    return "'" + value.replace("'", "''") + "'"


def key(identifier: str, table: str = "") -> str:
    """Return a column read as the text of a key: an integer as its digits, as docs/buckets.md says."""
    return f"CAST({table}{'.' if table else ''}{name(identifier)} AS VARCHAR)"


def bucket(identifier: str, first_digit: int) -> str:
    """Return the bucket of a key column: 1 is the first digit of the tier's, 9 of the holdout's."""
    return f"bucket_of({key(identifier)}, {first_digit})"

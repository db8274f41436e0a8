"""From a row of the ledger's tables to the fields of its record."""

from typing import Any

from sqlalchemy import RowMapping


def fields_of(row: RowMapping) -> dict[str, Any]:
    """Return the row's values by name, without its place in the order of rows."""
    return {name: value for name, value in row.items() if name != "sequence"}

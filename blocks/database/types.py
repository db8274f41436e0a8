"""Column types that hold the same text in every database: moments, and small values as JSON."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import String, Text
from sqlalchemy.types import TypeDecorator

from blocks.database.common import to_utc

Value = Mapping[str, str] | tuple[str, ...]


class UtcTimestamp(TypeDecorator[datetime]):
    """A moment as ISO 8601 text in UTC with microseconds: alike in every database, and in order as text."""

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> str | None:
        """Return the moment as text."""
        return None if value is None else to_utc(value).isoformat(timespec="microseconds")

    def process_result_value(self, value: str | None, dialect: Any) -> datetime | None:
        """Return the text as a moment in UTC."""
        return None if value is None else datetime.fromisoformat(value)


class Json(TypeDecorator[Value]):
    """A tuple of texts as a JSON list, or texts by name as a JSON object."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Value | None, dialect: Any) -> str | None:
        """Return the value as JSON."""
        return None if value is None else json.dumps(value if isinstance(value, tuple) else dict(value))

    def process_result_value(self, value: str | None, dialect: Any) -> Value | None:
        """Return the value of the JSON text; a list comes back as a tuple."""
        found = None if value is None else json.loads(value)
        return tuple(found) if isinstance(found, list) else found

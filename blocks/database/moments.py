"""Times in the ledger: each has a zone, so that it is one moment."""

from datetime import UTC, datetime

from blocks.common.errors import Rejected


def in_utc(when: datetime) -> datetime:
    """Return the same moment in UTC.

    Raises:
        Rejected: it has no zone, so that it could be any of a day's moments.
    """
    if when.utcoffset() is None:
        raise Rejected(f"ledger: the time {when.isoformat()} has no zone. Give one: datetime.now(UTC).")
    return when.astimezone(UTC)

"""Helpers shared by the ports of the ledger: times with a zone, and fault injection for the fakes."""

from dataclasses import dataclass
from datetime import UTC, datetime

from blocks.common.errors import Rejected, Unavailable


def to_utc(when: datetime) -> datetime:
    """Convert a time to UTC. Raises Rejected if it has no zone."""
    if when.utcoffset() is None:
        raise Rejected(f"ledger: the time {when.isoformat()} has no zone. Give one: datetime.now(UTC).")
    return when.astimezone(UTC)


@dataclass
class FailingWrites:
    """Makes the next `fail_writes` writes raise Unavailable; later writes succeed."""

    fail_writes: int = 0

    def may_write(self) -> None:
        """Count one write. Raises Unavailable if it must fail; nothing was written."""
        if self.fail_writes > 0:
            self.fail_writes -= 1
            raise Unavailable("ledger: this fake is configured to fail (fail_writes). Try again.")

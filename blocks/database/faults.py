"""Faults that the fakes of the ledger's ports raise on demand."""

from dataclasses import dataclass

from blocks.common.errors import Unavailable


@dataclass
class FailingWrites:
    """Makes the next `fail_writes` writes raise Unavailable; then writes work again."""

    fail_writes: int = 0

    def may_write(self) -> None:
        """Count one write.

        Raises:
            Unavailable: this write is one of those that are to fail; nothing was written.
        """
        if self.fail_writes > 0:
            self.fail_writes -= 1
            raise Unavailable("ledger: this fake fails so many writes (fail_writes). Try again.")

"""Progress of long work, reported in the log and on the flow run's page, every 5 s at most."""

import time
from collections.abc import Callable
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from prefect.logging import get_logger, get_run_logger

from runtime.foreign_text import escape_markdown
from tasks.shared.reports import only_reports

_EVERY_SECONDS = 5.0


class Progress:
    """Counts rows and bytes, and reports them. Work of less than 5 s is not reported.

    Outside a task run progress is only logged. `say` takes each line of text in place of the log,
    and `clock` tells seconds.
    """

    def __init__(
        self,
        what: str,
        total_bytes: int,
        say: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._total, self._clock = what, total_bytes, clock
        self._in_run = TaskRunContext.get() is not None
        self._last_report = self._clock()
        self._artifact: UUID | None = None
        self._say = say or (get_run_logger() if self._in_run else get_logger("ingest")).info
        self.rows, self.bytes = 0, 0

    def add(self, rows: int, read: int = 0) -> None:
        """Add rows, and the bytes of the source that were read for them."""
        self.rows, self.bytes = self.rows + rows, self.bytes + read
        if self._clock() - self._last_report < _EVERY_SECONDS:
            return
        self._last_report = self._clock()
        of = f", {self.bytes / 1e6:,.0f} of {self._total / 1e6:,.0f} MB" if self._total else ""
        self._say(f"{self._what}: {self.rows:,} rows{of}")
        if self._in_run and self._total:
            self._show(min(100.0 * self.bytes / self._total, 100.0))

    def start_step(self, what: str) -> None:
        """Begin the next part of the work."""
        self._what, self.rows, self.bytes = what, 0, 0

    def _show(self, share: float) -> None:
        with only_reports("the progress"):
            if self._artifact is None:
                made = create_progress_artifact(
                    progress=share, key="ingest-progress", description=escape_markdown(self._what)
                )
                self._artifact = made if isinstance(made, UUID) else None
            else:
                update_progress_artifact(self._artifact, progress=share, description=escape_markdown(self._what))

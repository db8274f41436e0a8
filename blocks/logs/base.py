"""The logs port: the lines of flow runs, kept by somebody else than the Prefect server."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from prefect.blocks.core import Block


@dataclass(frozen=True)
class LogLine:
    """One line, or several that belong together (a traceback). `at` is in seconds since 1970, as in `time.time()`."""

    at: float
    text: str


class RunLogs(Block):
    """Keeps lines by flow run. Who sends them buffers and tries again; nothing of it is the run's to wait for."""

    @abstractmethod
    def send(self, run: str, lines: Sequence[LogLine]) -> None:
        """Keep these lines, oldest first, after those that were kept of the run. `run` is a path: `retrain/<id>`.

        It answers within seconds, whatever the matter is. Of lines that are sent twice, both may be kept.

        Raises:
            TransientError: the service did not answer, or is busy; the same lines may be sent again.
            TerminalError: they will never be taken: a right, a group or the request itself is the matter.
        """

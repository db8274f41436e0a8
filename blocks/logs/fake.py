"""Logs in memory, which fail as told."""

from collections.abc import Sequence

from pydantic import Field, PrivateAttr

from blocks.common.errors import Rejected, Unavailable
from blocks.logs.base import LogLine, RunLogs


class FakeRunLogs(RunLogs):
    """Remembers what was sent, by flow run."""

    _block_type_name = "Ratchet logs: fake"
    _block_type_slug = "ratchet-logs-fake"

    unavailable: int = Field(default=0, ge=0, description="How many calls are not answered before one is.")
    refused: bool = Field(default=False, description="Whether every call is refused for good.")
    _kept: dict[str, list[LogLine]] = PrivateAttr(default_factory=dict)
    _calls: list[int] = PrivateAttr(default_factory=list)

    @property
    def calls(self) -> tuple[int, ...]:
        """How many lines each call had."""
        return tuple(self._calls)

    def kept(self, run: str) -> list[str]:
        """Return the lines of a run."""
        return [line.text for line in self._kept.get(run, ())]

    def send(self, run: str, lines: Sequence[LogLine]) -> None:
        """Remember the lines, or fail as told."""
        self._calls.append(len(lines))
        if self.refused:
            raise Rejected("the fake refuses every line")
        if len(self._calls) <= self.unavailable:
            raise Unavailable("the fake does not answer yet")
        self._kept.setdefault(run, []).extend(lines)

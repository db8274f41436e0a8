"""Prefect's local result files as collectable artifacts.

Results of unfinished flow runs are kept, since a resumed run reads them again.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, StateType
from prefect.settings import get_current_settings

from blocks.common.collectable import FolderArtifacts
from blocks.records.collectable import Collectable

PAGE_SIZE = 200
"""How many rows Prefect's server returns in one response."""
UNFINISHED_STATES = [state for state in StateType if state not in TERMINAL_STATES]


class ResultArtifacts(FolderArtifacts):
    """The files of Prefect's local result storage."""

    def __init__(self, root: Path | None = None) -> None:
        super().__init__(root or get_current_settings().results.local_storage_path, "result", depth=1)

    def collectables(self, models: Sequence[str]) -> tuple[Collectable, ...]:
        """Return every result file; those of unfinished flow runs have a keep reason."""
        files = [path for path in self.root.glob("*") if path.is_file()]
        needed = set(results_in_use()) if files else set()
        reason = "a flow run that has not ended may read it"
        return (
            *self.collectables_of([path for path in files if path.name not in needed]),
            *self.collectables_of([path for path in files if path.name in needed], keep_reason=reason),
        )


def results_in_use() -> Iterator[str]:
    """Yield the names of the result files of all unfinished flow runs, and of their tasks.

    A run that was suspended for weeks reads the results of its tasks when it resumes.
    """
    with get_client(sync_client=True) as client:
        own = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED_STATES)))
        for read in (client.read_flow_runs, client.read_task_runs):
            for run in _pages(lambda offset, read=read: read(flow_run_filter=own, limit=PAGE_SIZE, offset=offset)):
                if name := _result_file_name(run.state):
                    yield name


def _pages(page: Any) -> Iterator[Any]:
    offset = 0
    while found := page(offset):
        yield from found
        offset += len(found)


def _result_file_name(state: Any) -> str:
    """Return the name of the file that holds a state's result, or ""."""
    data = getattr(state, "data", None)
    key = data.get("storage_key") if isinstance(data, dict) else getattr(data, "storage_key", None)
    return Path(str(key)).name if key else ""

"""Collectable artifacts: how garbage collection lists, measures and deletes what an adapter stores."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import TERMINAL_STATES, StateType
from prefect.settings import get_current_settings

from blocks.common.errors import Rejected
from blocks.records.collectable import Collectable

DELETING_PREFIX = ".deleting-"
"""Name prefix of a folder that is being deleted."""
PAGE_SIZE = 200
"""How many rows Prefect's server returns in one response."""
UNFINISHED_STATES = [state for state in StateType if state not in TERMINAL_STATES]


class ArtifactOwner:
    """Owner of collectable artifacts. This base class owns none."""

    def collectables(self, models: Sequence[str]) -> tuple[Collectable, ...]:
        """Return the artifacts of these models; an owner whose artifacts belong to no model returns all of them."""
        return ()

    def size_bytes(self, key: str) -> int:
        """Return how many bytes a deletion would free; 0 if the artifact does not exist."""
        return 0

    def delete_collectables(self, key: str) -> None:
        """Delete the artifact permanently. Repeating the call changes nothing.

        The caller has checked that nothing depends on it.

        Raises:
            Rejected: the key does not name an artifact of this owner.
        """
        raise Rejected(f"{type(self).__name__} does not own {key!r}; it was not deleted")


class FolderArtifacts(ArtifactOwner):
    """Artifacts that are folders or files below `root`: measured and deleted as a whole.

    `depth` is the number of names in an artifact's path below the root: 2 for `<job>/<attempt>`.
    """

    def __init__(self, root: Path, kind: str, depth: int) -> None:
        self.root, self.kind, self.depth = root, kind, depth

    def path_of(self, key: str) -> Path:
        """Return the folder or file of a key. Raises Rejected if the key does not name one below the root."""
        kind, _, name = key.partition(":")
        parts = name.split("/")
        if kind != self.kind or len(parts) != self.depth or {"", ".", ".."} & set(parts):
            raise Rejected(f"{key!r} is not a {self.kind} below {self.root}; it was not deleted")
        return self.root.joinpath(*parts)

    def collectables_of(self, paths: Iterable[Path], keep_reason: str = "") -> tuple[Collectable, ...]:
        """Return each path as an artifact, last used when anything in it was last written."""
        names = {path.relative_to(self.root).as_posix(): path for path in sorted(paths)}
        return tuple(
            Collectable(f"{self.kind}:{name}", f"{self.kind} {name}", last_modified(path), keep_reason=keep_reason)
            for name, path in names.items()
        )

    def size_bytes(self, key: str) -> int:
        """Return the bytes of all files of the artifact; links are not followed."""
        path = self.path_of(key)
        files = [path] if path.is_file() else path.rglob("*")
        return sum(file.lstat().st_size for file in files if file.is_symlink() or file.is_file())

    def delete_collectables(self, key: str) -> None:
        """Delete the file or folder. A folder is renamed first, so that no reader finds a part of it."""
        path = self.path_of(key)
        if path.is_dir() and not path.is_symlink():
            path.rename(path.with_name(f"{DELETING_PREFIX}{path.name}"))
        else:
            path.unlink(missing_ok=True)
        for leftover in path.parent.glob(f"{DELETING_PREFIX}*"):  # this folder, and leftovers of a killed process
            shutil.rmtree(leftover, ignore_errors=True)


def last_modified(path: Path) -> datetime:
    """Return when the path, or anything in it, was last written; links are not followed."""
    times = [path.lstat().st_mtime, *(inner.lstat().st_mtime for inner in path.rglob("*"))]
    return datetime.fromtimestamp(max(times), UTC)


class ScratchArtifacts(ArtifactOwner):
    """Owner of `tiers/<model>/<digest>` and `models/<model>/<version>`."""

    def __init__(self, root: Path) -> None:
        self._parts = {
            "tier": FolderArtifacts(root / "tiers", "tier", depth=2),
            "fetched-model": FolderArtifacts(root / "models", "fetched-model", depth=2),
        }

    def collectables(self, models: Sequence[str]) -> tuple[Collectable, ...]:
        """Return the tiers and fetched versions of these models; see `ArtifactOwner.collectables`."""
        return tuple(
            artifact
            for part in self._parts.values()
            for name in models
            for artifact in part.collectables_of((part.root / name).glob("*"))
        )

    def size_bytes(self, key: str) -> int:
        """Return the bytes of a tier or a fetched version; see `ArtifactOwner.size_bytes`."""
        return self._part(key).size_bytes(key)

    def delete_collectables(self, key: str) -> None:
        """Delete a tier or a fetched version; see `ArtifactOwner.delete_collectables`."""
        self._part(key).delete_collectables(key)

    def _part(self, key: str) -> FolderArtifacts:
        kind = key.partition(":")[0]
        if kind not in self._parts:
            raise Rejected(f"the scratch folder has no {key!r}; it was not deleted")
        return self._parts[kind]


class ResultArtifacts(FolderArtifacts):
    """The files of Prefect's local result storage. A resumed flow run reads its results again."""

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

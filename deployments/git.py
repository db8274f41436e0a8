"""Fetch commits, and ask cached repositories what a push or merge changed; `blocks.common.git` runs git."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blocks.common.errors import NotFound, Rejected
from blocks.common.git import GIT_SECONDS, HISTORY_SECONDS, git, has_commit, object_id
from runtime.digests import text_digest

MAX_KNOWN_HEADS = 100
"""How many earlier heads of a branch are compared with a merge, newest first."""


def fetch_commit(folder: Path, clone: str, commit: str, *, depth: int = 0, token: str = "") -> None:
    """Fetch a commit into the repository at `folder`; if the host does not allow that, fetch all branches and tags.

    The commit comes with so many commits of its history (1: itself), and with 0 with all of them.

    Raises:
        Unavailable: the host does not respond.
        NotFound: the repository does not have the commit.
        Rejected: git fails for another reason.
    """
    fetch, limit = ("fetch", "--quiet", "--no-tags", "--update-shallow"), (f"--depth={depth}",) if depth else ()
    source, wanted, seconds = _address(clone), object_id(commit), GIT_SECONDS if depth else HISTORY_SECONDS
    try:
        git(*fetch, *limit, values=[source, wanted], folder=folder, token=token, seconds=seconds)
    except Rejected as by_id:
        everything = ("+refs/heads/*:refs/fetched/heads/*", "+refs/tags/*:refs/fetched/tags/*")
        git(*fetch, values=[source, *everything], folder=folder, token=token, seconds=seconds)
        if not has_commit(folder, commit):
            raise NotFound(f"{clone} does not have the commit {commit}: {by_id}") from by_id


@dataclass(frozen=True)
class Merge:
    """A merge as a host reports it.

    `commit` is the new head of `branch`; `head` the last commit of the branch that was merged, and `base` a commit that
    `branch` had at some time before ("" for unknown). `known_heads` are earlier heads of `branch`, newest first.
    """

    branch: str
    commit: str
    head: str = ""
    base: str = ""
    known_heads: tuple[str, ...] = ()


class RepositoryCache:
    """Cached bare repositories of the gateway, two per clone URL, with the commits fetched so far.

    One has single commits, for pushes; the other one has the history of the branches that were merged into. (Fetching
    it with `--filter=blob:none` would be less, but git 2.39 never ends when the host has a shallow clone.) Clone URLs
    come only from triggers.yaml.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def changed_files(
        self, clone: str, base_commit: str, commit: str, *, merged: bool = False, token: str = ""
    ) -> list[str]:
        """Return the files that differ between two commits, sorted; a renamed file counts under both names.

        With no base commit, or when the host no longer has it, every file counts as changed. With `merged` and no base
        commit: the files that differ from the first parent.

        Raises:
            Unavailable: the host does not respond.
            NotFound, Rejected: the host does not have the commit, or refuses.
        """
        folder = self._open_repository(clone)
        fetch_commit(folder, clone, commit, depth=2 if merged else 1, token=token)
        if merged and not base_commit:
            base_commit = next(iter(_parents(folder, commit)), "")
        elif base_commit and not has_commit(folder, base_commit):
            try:
                fetch_commit(folder, clone, base_commit, depth=1, token=token)
            except NotFound:
                base_commit = ""
        return sorted(_differing_files(folder, base_commit, commit))

    def merged_files(self, clone: str, merge: Merge, *, token: str = "") -> list[str]:
        """Return the files that a merge changed on its branch, sorted; a renamed file counts under both names.

        A merge commit is compared with its first parent. After a squash or a rebase, the branch that was merged is
        compared with the place where it left the other one. After a fast-forward, git no longer knows where the branch
        was: the newest known earlier head counts, then the base that the host names. Without either, every file counts.

        Raises:
            Unavailable: the host does not respond.
            NotFound: the host does not have the branch, or the commit is not on it (yet).
            Rejected: the host refuses.
        """
        folder, commit = self._open_repository(clone, "-history"), object_id(merge.commit)
        self._fetch_history(folder, clone, merge, token)
        parents = _parents(folder, commit)
        if len(parents) > 1:
            return sorted(_differing_files(folder, parents[0], commit))
        if merge.head and has_commit(folder, merge.head) and not _is_ancestor(folder, merge.head, commit):
            if fork := _merge_base(folder, merge.head, commit):
                brought = _differing_files(folder, fork, merge.head)
                return sorted(brought & _differing_files(folder, fork, commit))
            return sorted(_differing_files(folder, "", commit))
        known = _nearest_ancestor(folder, merge.known_heads[:MAX_KNOWN_HEADS], commit)
        return sorted(_differing_files(folder, known or _nearest_ancestor(folder, [merge.base], commit), commit))

    def _fetch_history(self, folder: Path, clone: str, merge: Merge, token: str) -> None:
        """Fetch the branch, and the head of the merged one if the host still has it; check that the commit is there."""
        fetch = ("fetch", "--quiet", "--no-tags", "--update-shallow")
        local = f"refs/fetched/{text_digest(merge.branch)[:16]}"
        branch = f"+refs/heads/{merge.branch}:{local}"
        try:
            git(*fetch, values=[_address(clone), branch], folder=folder, token=token, seconds=HISTORY_SECONDS)
        except Rejected as cause:
            if "couldn't find remote ref" not in str(cause):
                raise
            raise NotFound(f"{clone} does not have the branch {merge.branch!r}") from cause
        if not has_commit(folder, merge.commit) or not _is_ancestor(folder, merge.commit, local):
            raise NotFound(f"the commit {merge.commit} is not on the branch {merge.branch!r} of {clone}")
        if merge.head and not has_commit(folder, merge.head):
            with suppress(Rejected):
                head = object_id(merge.head)
                git(*fetch, values=[_address(clone), head], folder=folder, token=token, seconds=HISTORY_SECONDS)

    def branch_heads(self, clone: str, *, token: str = "") -> dict[str, str]:
        """Return the head commit of each branch (`{"main": commit}`). Raises Unavailable or Rejected."""
        repository = self._open_repository(clone)
        listed = git("ls-remote", "--heads", values=[_address(clone)], folder=repository, token=token)
        pairs = (line.split("\t") for line in listed.decode(errors="replace").split("\n") if "\t" in line)
        return {ref.removeprefix("refs/heads/"): commit for commit, ref in pairs}

    def _open_repository(self, clone: str, suffix: str = "") -> Path:
        folder = self._folder / f"{text_digest(clone)[:16]}{suffix}.git"
        if not (folder / "HEAD").exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            git("init", "--quiet", "--bare", folder=folder)
        return folder


def _address(clone: str) -> str:
    if clone.startswith("-") or not clone.isprintable() or not clone:
        raise Rejected(f"{clone[:80]!r} is not the address of a repository: write https://host/owner/name.git")
    return clone


def _parents(folder: Path, commit: str) -> list[str]:
    """Return the parents of a commit, none for the first one of a history or of a shallow clone."""
    listed = git("rev-list", "--parents", "--max-count=1", values=[object_id(commit)], folder=folder)
    return listed.decode().split()[1:]


def _is_ancestor(folder: Path, commit: str, head: str) -> bool:
    """Whether the history of `head`, a commit or a ref of ours, has the commit."""
    try:
        git("merge-base", "--is-ancestor", values=[object_id(commit), head], folder=folder)
    except Rejected:
        return False
    return True


def _merge_base(folder: Path, one: str, other: str) -> str:
    """Return the newest commit that both histories have, or "" for none."""
    try:
        return git("merge-base", values=[object_id(one), object_id(other)], folder=folder).decode().strip()
    except Rejected:
        return ""


def _nearest_ancestor(folder: Path, candidates: Iterable[str], commit: str) -> str:
    """Return the candidate that is nearest to the commit in its history, the commit itself apart; "" for none."""
    nearest = ""
    for each in candidates:
        if each and each != commit and has_commit(folder, each) and _is_ancestor(folder, each, commit):
            nearest = each if not nearest or _is_ancestor(folder, nearest, each) else nearest
    return nearest


def _differing_files(folder: Path, base_commit: str, commit: str) -> set[str]:
    """Return the files that differ; without a base commit, all files of the commit."""
    if base_commit:
        ends = [object_id(base_commit), object_id(commit)]
        listed = git("diff-tree", "-r", "-z", "--no-renames", "--name-only", values=ends, folder=folder)
    else:
        listed = git("ls-tree", "-r", "-z", "--name-only", values=[object_id(commit)], folder=folder)
    return {path.decode(errors="replace") for path in listed.split(b"\0") if path}

"""Run git without prompts, hooks and unreviewed settings, and ask cached repositories what a push or merge changed.

A token is passed in an environment variable, so that `ps` does not show it. Whatever comes from outside is checked, and
stands behind `--end-of-options`, so that git never reads it as an option.
"""

import base64
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blocks.common.errors import NotFound, Rejected, Unavailable
from runtime.digests import text_digest

GIT_SECONDS = 60.0
"""Time limit of one call of git."""
HISTORY_SECONDS = 600.0
"""Time limit of a call that fetches the history of a branch. The first such call may take minutes."""
MAX_KNOWN_HEADS = 100
"""How many earlier heads of a branch are compared with a merge, newest first."""

_OBJECT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

_TRANSIENT_GIT_ERRORS = re.compile(
    r"could not resolve|couldn't connect|connection (refused|reset|timed out)|timed out|early eof|hung up|"
    r"error: 5\d\d|error: 429|temporarily|cannot lock|unable to create .*\.lock",
    re.IGNORECASE,
)


def git(*arguments: str, folder: Path, token: str = "", seconds: float = GIT_SECONDS) -> bytes:
    """Run git in a folder and return its output.

    Raises:
        Unavailable: the host does not respond, or took too long; the call may be repeated.
        Rejected: git fails for another reason; the message contains git's error.
    """
    command = ["git", "-c", "protocol.ext.allow=never", "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        done = subprocess.run(
            command, cwd=folder, env=_git_environment(token), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as cause:
        raise Unavailable(f"git {arguments[0]} took longer than {seconds:.0f} s") from cause
    if done.returncode == 0:
        return done.stdout
    error = done.stderr.decode(errors="replace").strip()[-500:]
    kind = Unavailable if _TRANSIENT_GIT_ERRORS.search(error) else Rejected
    raise kind(f"git {arguments[0]} failed: {error or f'exit code {done.returncode}'}")


_UNSAFE_GIT_VARIABLES = re.compile(
    r"GIT_(DIR|WORK_TREE|INDEX_FILE|OBJECT_DIRECTORY|ALTERNATE_.*|NAMESPACE|CONFIG.*)|PREFECT_API_(AUTH_STRING|KEY)"
)
"""Variables that are not passed to git: of another repository, of unreviewed settings, and Prefect's credentials."""


def _git_environment(token: str) -> Mapping[str, str]:
    variables = {name: value for name, value in os.environ.items() if not _UNSAFE_GIT_VARIABLES.fullmatch(name)}
    variables |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "https:http:ssh:file", "LC_ALL": "C"}
    variables.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=15")
    if token:
        basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        variables |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {basic}",
        }
    return variables


def fetch_commit(folder: Path, clone: str, commit: str, *, depth: int = 1, token: str = "") -> None:
    """Fetch one commit into the repository at `folder`; if the host does not allow that, fetch all branches and tags.

    Raises:
        Unavailable: the host does not respond.
        NotFound: the repository does not have the commit.
        Rejected: git fails for another reason.
    """
    fetch = ("fetch", "--quiet", "--no-tags", "--update-shallow")
    source = ("--end-of-options", _address(clone))
    wanted = _object_id(commit)
    try:
        git(*fetch, f"--depth={depth}", *source, wanted, folder=folder, token=token)
    except Rejected as by_id:
        everything = ("+refs/heads/*:refs/fetched/heads/*", "+refs/tags/*:refs/fetched/tags/*")
        git(*fetch, *source, *everything, folder=folder, token=token)
        if not has_commit(folder, commit):
            raise NotFound(f"{clone} does not have the commit {commit}: {by_id}") from by_id


def has_commit(folder: Path, commit: str) -> bool:
    """Whether the repository at `folder` has the commit."""
    try:
        git("cat-file", "-e", "--end-of-options", f"{_object_id(commit)}^{{commit}}", folder=folder)
    except Rejected:
        return False
    return True


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
                fetch_commit(folder, clone, base_commit, token=token)
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
        folder, commit = self._open_repository(clone, "-history"), _object_id(merge.commit)
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
        fetch = ("fetch", "--quiet", "--no-tags", "--update-shallow", "--end-of-options")
        local = f"refs/fetched/{text_digest(merge.branch)[:16]}"
        branch = f"+refs/heads/{merge.branch}:{local}"
        try:
            git(*fetch, _address(clone), branch, folder=folder, token=token, seconds=HISTORY_SECONDS)
        except Rejected as cause:
            if "couldn't find remote ref" not in str(cause):
                raise
            raise NotFound(f"{clone} does not have the branch {merge.branch!r}") from cause
        if not has_commit(folder, merge.commit) or not _is_ancestor(folder, merge.commit, local):
            raise NotFound(f"the commit {merge.commit} is not on the branch {merge.branch!r} of {clone}")
        if merge.head and not has_commit(folder, merge.head):
            with suppress(Rejected):
                head = _object_id(merge.head)
                git(*fetch, _address(clone), head, folder=folder, token=token, seconds=HISTORY_SECONDS)

    def branch_heads(self, clone: str, *, token: str = "") -> dict[str, str]:
        """Return the head commit of each branch (`{"main": commit}`). Raises Unavailable or Rejected."""
        command = ("ls-remote", "--heads", "--end-of-options", _address(clone))
        listed = git(*command, folder=self._open_repository(clone), token=token).decode(errors="replace")
        pairs = (line.split("\t") for line in listed.split("\n") if "\t" in line)
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


def _object_id(commit: str) -> str:
    if not _OBJECT_ID.fullmatch(commit):
        raise Rejected(f"{commit[:80]!r} is not a full commit id: give 40 or 64 hexadecimal digits")
    return commit


def _parents(folder: Path, commit: str) -> list[str]:
    """Return the parents of a commit, none for the first one of a history or of a shallow clone."""
    command = ("rev-list", "--parents", "--max-count=1", "--end-of-options", _object_id(commit))
    return git(*command, folder=folder).decode().split()[1:]


def _is_ancestor(folder: Path, commit: str, head: str) -> bool:
    """Whether the history of `head`, a commit or a ref of ours, has the commit."""
    try:
        git("merge-base", "--is-ancestor", "--end-of-options", _object_id(commit), head, folder=folder)
    except Rejected:
        return False
    return True


def _merge_base(folder: Path, one: str, other: str) -> str:
    """Return the newest commit that both histories have, or "" for none."""
    try:
        return git("merge-base", "--end-of-options", _object_id(one), _object_id(other), folder=folder).decode().strip()
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
        command: tuple[str, ...] = ("diff-tree", "-r", "-z", "--no-renames", "--name-only", "--end-of-options")
        listed = git(*command, _object_id(base_commit), _object_id(commit), folder=folder)
    else:
        listed = git("ls-tree", "-r", "-z", "--name-only", "--end-of-options", _object_id(commit), folder=folder)
    return {path.decode(errors="replace") for path in listed.split(b"\0") if path}

"""The code of a model in git: its commit, what differs from it, and its authors, who may not approve it.

Git records who somebody says they are. Whoever forges the author of a commit is not found here, unless the repository
requires signed commits; the gateway adds the account that pushed. `.mailmap` and replaced objects do not count: both
are text of the repository.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from blocks.common.errors import PortError, Rejected
from blocks.common.git import HISTORY_SECONDS, git, has_commit, object_id
from blocks.common.plain_files import holds_private_key, read_folder
from blocks.records.identity import UNKNOWN_HISTORY
from runtime.digests import bytes_digest
from tasks.shared.models import ROOT, model_names
from tasks.shared.records import CodeProvenance
from tasks.shared.rules.git import people_of_commit
from tasks.shared.rules.model.namespaces import base_name

_TRAINING_ROOMS, _TRAINING_FILES = ("flows", "tasks", "blocks", "runtime"), ("prefect.yaml", "pyproject.toml")
NOT_IN_GIT = "not in git"
"""The commit of code that is in no repository."""

_FORM = "--format=%x00%an <%ae>%n%cn <%ce>%n%B%x00"
_COPIES = ("-r", "-z", "-m", "--root", "--no-commit-id", "--find-copies-harder", "--no-rename-empty", "-l0",
           "--name-status")  # fmt: skip


def code_provenance(root: Path = ROOT, model: str = "") -> CodeProvenance:
    """Return the commit of the checkout, and the patch of uncommitted changes to the code that training runs.

    It holds changes and new Python files of the rooms that training uses, and every file of the model's folder that a
    job gets (of all models if `model` is empty), also one that git ignores. Nothing else of the checkout is in it.

    Raises:
        Rejected: the model's folder holds something else than files, the changes hold a private key, or git knows the
            commit, but cannot say what differs from it.
    """
    if (commit := _head(root)) == NOT_IN_GIT:
        return CodeProvenance(commit=commit, patch_digest="")
    folders = [f"models/{name}" for name in model_names(root) if not model or name == base_name(model)]
    paths = [*_TRAINING_ROOMS, *_TRAINING_FILES, *folders]
    new = _new_files(root, folders)  # refuses what is no file before git reads it
    patch = git("diff", "--binary", values=["HEAD"], paths=paths, folder=root)
    for name in new:
        patch += git("diff", "--no-index", "--binary", paths=["/dev/null", name], folder=root, accepted=(0, 1))
    if holds_private_key(patch):
        raise Rejected("the uncommitted changes hold a private key, and they are stored with the run. Move it out.")
    digest = bytes_digest(patch) if patch else ""
    return CodeProvenance(commit=commit, patch_digest=digest, patch=patch.decode(errors="surrogateescape"))


def _new_files(root: Path, folders: Sequence[str]) -> list[str]:
    """Return the files that git does not track, sorted: Python in the rooms, and the programs of the models."""
    listed = git("ls-files", "--others", "--exclude-standard", "-z", paths=_TRAINING_ROOMS, folder=root).split(b"\0")
    new = {name for name in map(os.fsdecode, listed) if name.endswith(".py")}
    tracked = {os.fsdecode(name) for name in git("ls-files", "-z", paths=folders, folder=root).split(b"\0")}
    programs = {f"{folder}/{name}" for folder in folders for name in read_folder(root / folder)}
    return sorted(new | (programs - tracked))


def unapproved_authors(
    name: str, since: str = "", root: Path = ROOT, *, commit: str = "", has_patch: bool = False
) -> tuple[str, ...]:
    """Return the authors of a model's code at a commit ("": the checkout's), as "Name <mail>", newest first.

    These are the authors, committers and co-authors of the commits that changed the model's folder, or a file that was
    renamed or copied into it; and those who changed it in a merge. Only commits since `since` count when `commit`
    contains it, or the last one when there are none; otherwise all of history. With `has_patch`, or when the folder has
    uncommitted changes, git's user of this checkout is an author as well. What cannot be told is one more author, who
    is named `UNKNOWN_HISTORY`.
    """
    folder = f"models/{base_name(name)}"
    if (commit := commit or _head(root)) == NOT_IN_GIT:
        return (_untold("the code is not in git"),)
    try:
        commit = object_id(commit)
        known = bool(since) and has_commit(root, since) and _contains(root, commit, since)
        commits = [f"{since}..{commit}"] if known else [commit]
        authors = _people(_changes(root, commits, [folder]) or _log(root, [commit], [folder], "--max-count=1"))
        sources = _sources_of(root, folder, commits, commit)
        authors += _people(_changes(root, [commit], sources)) if sources else []
        if _is_cut_off(root, [commit] if sources else commits):
            authors.append(_untold("the checkout does not have all of the history"))
        if not authors:
            authors.append(_untold(f"no commit has {folder}"))
        if has_patch or git("status", "--porcelain", paths=[folder], folder=root):
            authors.append(_user(root))
    except PortError:
        return (_untold(f"git cannot tell the history of {folder} at {commit[:12]}"),)
    return tuple(dict.fromkeys(authors))


def _contains(root: Path, commit: str, since: str) -> bool:
    """Whether `since` is in the history of `commit`: an older commit may have code that was reverted since."""
    return not git("rev-list", "--max-count=1", values=[f"{commit}..{since}"], folder=root).strip()


def _changes(root: Path, commits: Sequence[str], paths: Sequence[str]) -> list[tuple[str, str]]:
    """Return the commits that changed one of the paths, of merges only those that changed it themselves.

    A merge of two commits did when it differs from what git makes of the two; one of more commits always counts.
    """
    merges = _log(root, commits, paths, "--min-parents=2", "--max-parents=2", "--remerge-diff", "--name-only")
    many = _log(root, commits, paths, "--min-parents=3")
    return [*_log(root, commits, paths, "--no-merges"), *(each for each in merges if each[1]), *many]


def _people(changes: Iterable[tuple[str, str]]) -> list[str]:
    return [person for message, _ in changes for person in people_of_commit(message)]


def _log(root: Path, commits: Sequence[str], paths: Sequence[str], *options: str) -> list[tuple[str, str]]:
    """Return the message of each commit that changed one of the paths, and the files that `options` list."""
    shown = git(
        "log", "--full-history", _FORM, *options, values=commits, paths=paths, folder=root, seconds=HISTORY_SECONDS
    )
    parts = shown.decode(errors="replace").split("\0")
    return [(message, files.strip()) for message, files in zip(parts[1::2], parts[2::2], strict=True)]


def _sources_of(root: Path, folder: str, commits: Sequence[str], commit: str) -> list[str]:
    """Return the files elsewhere that `commits` renamed or copied into the folder, and those that these came from.

    All of their history counts: nobody approved it for this model.
    """
    paths, searched, within = [folder], 0, commits
    while searched < len(paths):
        new, searched = paths[searched:], len(paths)
        for adding in _adding_commits(root, new, within):
            listed = git("diff-tree", *_COPIES, values=[adding], folder=root, seconds=HISTORY_SECONDS)
            paths += [source for source in _old_paths(listed, new) if not _is_below(source, paths)]
        within = [commit]
    return list(dict.fromkeys(paths[1:]))


def _adding_commits(root: Path, paths: Sequence[str], commits: Sequence[str]) -> list[str]:
    options = ("--full-history", "-m", "--no-renames", "--diff-filter=A", "--format=%H")
    listed = git("log", *options, values=commits, paths=paths, folder=root, seconds=HISTORY_SECONDS)
    return list(dict.fromkeys(listed.decode().split()))


def _old_paths(listed: bytes, paths: Sequence[str]) -> Iterator[str]:
    """Yield the old paths of files that were renamed or copied to one of the paths, of `--name-status -z`."""
    fields = iter(listed.decode(errors="surrogateescape").split("\0"))
    for status in fields:
        if status[:1] in ("R", "C"):
            source, target = next(fields), next(fields)
            if _is_below(target, paths):
                yield source
        elif status:
            next(fields)


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _is_cut_off(root: Path, commits: Sequence[str]) -> bool:
    """Whether a shallow clone lacks the parents of one of the commits."""
    file = root / git("rev-parse", "--git-path", "shallow", folder=root).decode().strip()
    cut = set(file.read_text().split()) if file.exists() else set()
    return bool(cut & set(git("rev-list", values=commits, folder=root, seconds=HISTORY_SECONDS).decode().split()))


def _head(root: Path) -> str:
    try:
        return git("rev-parse", "--verify", values=["HEAD"], folder=root).decode().strip()
    except Rejected:
        return NOT_IN_GIT


def _user(root: Path) -> str:
    try:
        return git("var", values=["GIT_AUTHOR_IDENT"], folder=root).decode(errors="replace").rpartition(">")[0] + ">"
    except Rejected:
        return _untold("there are uncommitted changes, and git has no user here")


def _untold(reason: str) -> str:
    return f"{UNKNOWN_HISTORY} ({reason})"

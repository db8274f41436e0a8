"""Read from git: the files changed between two commits, and the head of each branch.

Repository addresses come only from triggers.yaml.
"""

from pathlib import Path

from blocks.common.errors import NotFound
from deployments.git import fetch_commit, git, has_commit
from runtime.digests import text_digest


class RepositoryCache:
    """Cached bare repositories, one per clone URL, with the commits fetched so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def changed_files(
        self, clone: str, base_commit: str, commit: str, *, merged: bool = False, token: str = ""
    ) -> list[str]:
        """Return the files that differ between two commits, sorted; a renamed file counts under both names.

        With no base commit, or when the host no longer has it, every file counts as changed. For a merge (`merged`):
        the files that differ from the first parent.

        Raises:
            Unavailable: the host does not respond.
            NotFound, Rejected: the host does not have the commit, or refuses.
        """
        folder = self._open_repository(clone)
        fetch_commit(folder, clone, commit, depth=2 if merged else 1, token=token)
        if merged and not base_commit:
            base_commit = f"{commit}^1" if has_commit(folder, f"{commit}^1") else ""
        elif base_commit and not has_commit(folder, base_commit):
            try:
                fetch_commit(folder, clone, base_commit, token=token)
            except NotFound:
                base_commit = ""
        if base_commit:
            listed = git("diff-tree", "-r", "-z", "--no-renames", "--name-only", base_commit, commit, folder=folder)
        else:
            listed = git("ls-tree", "-r", "-z", "--name-only", commit, folder=folder)
        return sorted(path.decode(errors="replace") for path in listed.split(b"\0") if path)

    def branch_heads(self, clone: str, *, token: str = "") -> dict[str, str]:
        """Return the head commit of each branch (`{"main": commit}`). Raises Unavailable or Rejected."""
        listed = git("ls-remote", "--heads", "--", clone, folder=self._open_repository(clone), token=token).decode()
        pairs = (line.split("\t") for line in listed.splitlines() if "\t" in line)
        return {ref.removeprefix("refs/heads/"): commit for commit, ref in pairs}

    def _open_repository(self, clone: str) -> Path:
        folder = self._folder / f"{text_digest(clone)[:16]}.git"
        if not (folder / "HEAD").exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            git("init", "--quiet", "--bare", folder=folder)
        return folder

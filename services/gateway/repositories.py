"""What git itself says of a repository: which files changed between two commits, and where its branches are.

Addresses come from triggers.yaml alone.
"""

from pathlib import Path

from blocks.common.errors import NotFound
from deployments.git import fetch_commit, git, has_commit
from runtime.digests import text_digest


class RepositoryCache:
    """Bare repositories below a folder, one for each address, that hold what was asked about."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def changed_files(
        self, clone: str, base_commit: str, commit: str, *, merged: bool = False, token: str = ""
    ) -> list[str]:
        """Return the files that differ between two commits, sorted; a renamed one counts under both names.

        Without a commit before, or when the host has thrown it away, every file counts as changed; of a merge
        (`merged`) those that differ from its first parent.

        Raises:
            Unavailable: the host does not answer.
            NotFound, Rejected: it does not have the commit, or refuses.
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
        """Return where the branches are (`{"main": commit}`). Raises Unavailable or Rejected."""
        listed = git("ls-remote", "--heads", "--", clone, folder=self._open_repository(clone), token=token).decode()
        pairs = (line.split("\t") for line in listed.splitlines() if "\t" in line)
        return {ref.removeprefix("refs/heads/"): commit for commit, ref in pairs}

    def _open_repository(self, clone: str) -> Path:
        folder = self._folder / f"{text_digest(clone)[:16]}.git"
        if not (folder / "HEAD").exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            git("init", "--quiet", "--bare", folder=folder)
        return folder

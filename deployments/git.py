"""Run git without prompts, hooks and unreviewed settings, and cache repositories.

A token is passed in an environment variable, so that `ps` does not show it.
"""

import base64
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from blocks.common.errors import NotFound, Rejected, Unavailable
from runtime.digests import text_digest

GIT_SECONDS = 60.0
"""Time limit of one call of git."""

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


_UNSAFE_GIT_VARIABLES = re.compile(r"GIT_(DIR|WORK_TREE|INDEX_FILE|OBJECT_DIRECTORY|ALTERNATE_.*|NAMESPACE|CONFIG.*)")
"""Variables that are not passed to git: they would point it at another repository or at unreviewed settings."""


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
    try:
        git("fetch", "--quiet", "--no-tags", f"--depth={depth}", "--", clone, commit, folder=folder, token=token)
    except Rejected as by_id:
        everything = ("+refs/heads/*:refs/fetched/heads/*", "+refs/tags/*:refs/fetched/tags/*")
        git("fetch", "--quiet", "--no-tags", "--", clone, *everything, folder=folder, token=token)
        if not has_commit(folder, commit):
            raise NotFound(f"{clone} does not have the commit {commit}: {by_id}") from by_id


def has_commit(folder: Path, commit: str) -> bool:
    """Whether the repository at `folder` has the commit."""
    try:
        git("cat-file", "-e", f"{commit}^{{commit}}", folder=folder)
    except Rejected:
        return False
    return True


class RepositoryCache:
    """Cached bare repositories of the gateway, one per clone URL, with the commits fetched so far.

    Clone URLs come only from triggers.yaml.
    """

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

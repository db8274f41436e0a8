"""What git itself says of a repository: which files changed between two commits, and where its branches are.

Addresses come from triggers.yaml alone. A token goes to git in a variable, where no list of processes shows it.
"""

import base64
import os
import re
import subprocess
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from blocks.errors import NotFound, Rejected, Unavailable

GIT_SECONDS = 60.0
"""How long one call of git may take."""

_LATER = re.compile(
    r"could not resolve|couldn't connect|connection (refused|reset|timed out)|timed out|early eof|hung up|"
    r"error: 5\d\d|error: 429|temporarily|cannot lock|unable to create .*\.lock",
    re.IGNORECASE,
)


def git(*arguments: str, folder: Path, token: str = "", seconds: float = GIT_SECONDS) -> bytes:
    """Run git in a folder, without prompts, and return what it says.

    Raises:
        Unavailable: the host does not answer, or took too long; it may in a moment.
        Rejected: git refuses; the message is git's.
    """
    command = ["git", "-c", "protocol.ext.allow=never", "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        done = subprocess.run(
            command, cwd=folder, env=_variables(token), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as cause:
        raise Unavailable(f"git {arguments[0]} took longer than {seconds:.0f} s") from cause
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode(errors="replace").strip()[-500:]
    kind = Unavailable if _LATER.search(said) else Rejected
    raise kind(f"git {arguments[0]} failed: {said or f'exit code {done.returncode}'}")


_ELSEWHERE = re.compile(r"GIT_(DIR|WORK_TREE|INDEX_FILE|OBJECT_DIRECTORY|ALTERNATE_.*|NAMESPACE|CONFIG.*)")
"""Variables that would lead git to another repository than the folder's, or to settings that nobody reviewed."""


def _variables(token: str) -> Mapping[str, str]:
    found = {name: value for name, value in os.environ.items() if not _ELSEWHERE.fullmatch(name)}
    found |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "https:http:ssh:file", "LC_ALL": "C"}
    found.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=15")
    if token:
        basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        found |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {basic}",
        }
    return found


def fetch_commit(folder: Path, clone: str, commit: str, *, depth: int = 1, token: str = "") -> None:
    """Fetch one commit into the repository at `folder`: by its id, or, where the host does not allow that, with all.

    Raises:
        Unavailable: the host does not answer.
        NotFound: the repository does not have the commit.
        Rejected: git refuses for another reason.
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


class Mirrors:
    """Bare repositories below a folder, one for each address, that hold what was asked about."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def changed(self, clone: str, before: str, commit: str, *, merged: bool = False, token: str = "") -> list[str]:
        """Return the files that differ between two commits, sorted; a renamed one counts under both names.

        Without a commit before, or when the host has thrown it away, every file counts as changed; of a merge
        (`merged`) those that differ from its first parent.

        Raises:
            Unavailable: the host does not answer.
            NotFound, Rejected: it does not have the commit, or refuses.
        """
        folder = self._open(clone)
        fetch_commit(folder, clone, commit, depth=2 if merged else 1, token=token)
        if merged and not before:
            before = f"{commit}^1" if has_commit(folder, f"{commit}^1") else ""
        elif before and not has_commit(folder, before):
            try:
                fetch_commit(folder, clone, before, token=token)
            except NotFound:
                before = ""
        if before:
            listed = git("diff-tree", "-r", "-z", "--no-renames", "--name-only", before, commit, folder=folder)
        else:
            listed = git("ls-tree", "-r", "-z", "--name-only", commit, folder=folder)
        return sorted(path.decode(errors="replace") for path in listed.split(b"\0") if path)

    def heads(self, clone: str, *, token: str = "") -> dict[str, str]:
        """Return where the branches are (`{"main": commit}`). Raises Unavailable or Rejected."""
        listed = git("ls-remote", "--heads", "--", clone, folder=self._open(clone), token=token).decode()
        pairs = (line.split("\t") for line in listed.splitlines() if "\t" in line)
        return {ref.removeprefix("refs/heads/"): commit for commit, ref in pairs}

    def _open(self, clone: str) -> Path:
        folder = self._folder / f"{sha256(clone.encode()).hexdigest()[:16]}.git"
        if not (folder / "HEAD").exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            git("init", "--quiet", "--bare", folder=folder)
        return folder

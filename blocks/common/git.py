"""Run git: the only way to it. No prompts, hooks, foreign programs or replaced objects, and no value read as an option.

The machine's and the account's own settings of git count (proxies, certificates, credentials, large files), and so does
who git says they are. Variables that point git at another repository or at other settings do not. A token is passed in
an environment variable, so that `ps` does not show it.
"""

import base64
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from blocks.common.errors import Rejected, Unavailable

GIT_SECONDS = 60.0
"""Time limit of one call of git."""
HISTORY_SECONDS = 600.0
"""Time limit of a call that reads or fetches the history of a branch. The first such call may take minutes."""

_OBJECT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

_TRANSIENT_GIT_ERRORS = re.compile(
    r"could not resolve|couldn't connect|connection (refused|reset|timed out)|timed out|early eof|hung up|"
    r"error: 5\d\d|error: 429|temporarily|cannot lock|unable to create .*\.lock",
    re.IGNORECASE,
)

_SETTINGS = (
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "protocol.ext.allow=never", "log.showSignature=false",
    "color.ui=false", "diff.noprefix=false", "diff.mnemonicPrefix=false", "submodule.recurse=false",
)  # fmt: skip
"""Settings that win over those of a repository: they would run a program, or change the form of the output."""
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "diff": ("--no-ext-diff", "--no-textconv"),
    "log": ("--no-ext-diff", "--no-textconv", "--no-mailmap", "--encoding=UTF-8"),
}
_NO_MARKER = {"checkout", "var"}
"""Commands of git 2.39 that take `--end-of-options` for a value."""


def git(
    command: str,
    *options: str,
    values: Sequence[str] = (),
    paths: Sequence[str] | None = None,
    folder: Path,
    token: str = "",
    seconds: float = GIT_SECONDS,
    accepted: Sequence[int] = (0,),
) -> bytes:
    """Run a command of git in a folder and return its output.

    Args:
        command: the command, such as "log".
        options: its options; each is written in this code or after an equals sign.
        values: what comes from elsewhere: commits, refs, addresses, files. They stand behind `--end-of-options`.
        paths: the paths that the command is limited to, behind `--`; no pattern is expanded.
        folder: the working directory.
        token: a password for https.
        seconds: the time limit.
        accepted: the exit codes that are no error.

    Raises:
        Unavailable: the host does not respond, or took too long; the call may be repeated.
        Rejected: a value looks like an option, or git fails for another reason; the message contains git's error.
    """
    for value in (*values, *(paths or ())):
        if not value or (value.startswith("-") and value in values) or "\0" in value:
            raise Rejected(f"git {command}: {value[:80]!r} is no commit, address or path: it may not begin with -")
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    marker = ("--end-of-options",) if values and command not in _NO_MARKER else ()
    limits = () if paths is None else ("--", *paths)
    arguments = ["git", "--no-pager", "--no-replace-objects", "--literal-pathspecs", *settings, command]
    arguments += [*_OPTIONS.get(command, ()), *options, *marker, *values, *limits]
    try:
        done = subprocess.run(
            arguments, cwd=folder, env=_git_environment(token), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as cause:
        raise Unavailable(f"git {command} took longer than {seconds:.0f} s") from cause
    except OSError as cause:
        raise Rejected(f"git {command} cannot be run in {folder}: {cause}") from cause
    if done.returncode in accepted:
        return done.stdout
    error = done.stderr.decode(errors="replace").strip()[-500:]
    kind = Unavailable if _TRANSIENT_GIT_ERRORS.search(error) else Rejected
    raise kind(f"git {command} failed: {error or f'exit code {done.returncode}'}")


_PASSED_VARIABLES = re.compile(r"GIT_(SSH.*|ASKPASS|SSL_.*|HTTP_.*|PROXY_.*|AUTHOR_.*|COMMITTER_.*)")
"""Variables of git that are passed on. Others would point it at another repository or at unreviewed settings.
Of Prefect's, its credentials are not passed."""


def _git_environment(token: str) -> Mapping[str, str]:
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GIT_", "PREFECT_API_")) or _PASSED_VARIABLES.fullmatch(name)
    }
    variables |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "https:http:ssh:file", "LC_ALL": "C"}
    variables |= {"GIT_GRAFT_FILE": os.devnull, "GIT_OPTIONAL_LOCKS": "0"}
    variables.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=15")
    if token:
        basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        variables |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {basic}",
        }
    return variables


def object_id(commit: str) -> str:
    """Return a full commit id as it is. Raises Rejected for anything else: an abbreviation, a branch, an option."""
    if not _OBJECT_ID.fullmatch(commit):
        raise Rejected(f"{commit[:80]!r} is not a full commit id: give 40 or 64 hexadecimal digits")
    return commit


def has_commit(folder: Path, commit: str) -> bool:
    """Whether the repository at `folder` has the commit."""
    try:
        git("cat-file", "-e", values=[f"{object_id(commit)}^{{commit}}"], folder=folder)
    except Rejected:
        return False
    return True

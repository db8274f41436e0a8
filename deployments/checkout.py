"""Check out the commit of `$RATCHET_COMMIT` and print its folder: `python -m deployments.checkout`.

All runs of a commit share one folder. It is created under a temporary name and then renamed, so no run sees a partial
checkout. Each use checks that the folder contains that commit, unchanged.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from blocks.common.errors import Corrupt, PortError
from blocks.common.git import git
from deployments.git import fetch_commit
from deployments.secret_store import SecretStore, SecretUnavailable
from runtime.foreign_text import print_text
from tasks.shared.rules.git import commit_id
from tasks.shared.rules.refusal import Refusal

CHECKOUT_RETENTION_DAYS = 7.0
"""Days after which an unused checkout is removed."""


def checkout(clone: str, commit: str, folder: Path, *, token: str = "") -> Path:
    """Return a folder inside `folder` with exactly that commit.

    Raises:
        Refusal: `commit` is not a full commit id.
        PortError: the repository does not respond, refuses, or does not have the commit; or the result is not that
            commit.
    """
    if not commit_id(commit, "RATCHET_COMMIT"):
        raise Refusal("zeros are the id of no commit", where="RATCHET_COMMIT", value=commit)
    target = folder / commit
    if target.exists() and not _is_clean_checkout(target, commit):
        target.rename(folder / f".other-{commit}-{time.time_ns()}")  # a run may have written into it
    if not target.exists():
        _create_checkout(target, clone, commit, token)
    os.utime(target)
    _remove_expired(folder)
    return target


def _create_checkout(target: Path, clone: str, commit: str, token: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
    try:
        git("init", "--quiet", folder=temporary)
        fetch_commit(temporary, clone, commit, token=token)
        git("checkout", "--quiet", "--detach", values=[commit], folder=temporary)
        if not _is_clean_checkout(temporary, commit):
            raise Corrupt(f"the checkout of {commit} from {clone} is not that commit")
        with suppress(OSError):  # another run was first: its folder is checked below
            temporary.rename(target)
        if not _is_clean_checkout(target, commit):
            raise Corrupt(f"{target} is not the commit {commit}")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_clean_checkout(folder: Path, commit: str) -> bool:
    """Whether the folder contains that commit, and otherwise only files that `.gitignore` names."""
    try:
        head = git("rev-parse", "--verify", values=["HEAD"], folder=folder).decode().strip()
        return head == commit and not git("status", "--porcelain", folder=folder).strip()
    except PortError:
        return False


def _remove_expired(folder: Path) -> None:
    for checkout_folder in folder.iterdir():
        with suppress(OSError):
            if time.time() - checkout_folder.stat().st_mtime > CHECKOUT_RETENTION_DAYS * 86_400:
                shutil.rmtree(checkout_folder)


def main(variables: Mapping[str, str]) -> int:
    """Check out the commit named in `variables`. Print the folder and return 0, or print the error and return 1."""
    folder = Path(variables.get("RATCHET_CHECKOUTS") or Path(variables.get("RATCHET_STATE", ".ratchet")) / "checkouts")
    try:
        name = variables.get("RATCHET_CREDENTIALS", "")
        token = SecretStore(variables).value(name) if name else ""
        clone = variables["RATCHET_REPOSITORY"]
        print_text(checkout(clone, variables["RATCHET_COMMIT"], folder.resolve(), token=token))
    except KeyError as missing:
        print_text(f"error: {missing} is not set", file=sys.stderr)
        return 1
    except (PortError, Refusal, SecretUnavailable, OSError) as error:
        print_text(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ))

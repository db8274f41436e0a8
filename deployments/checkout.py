"""Make a checkout of exactly the commit of `$RATCHET_COMMIT`, and print its folder: `python -m deployments.checkout`.

One folder a commit, shared by its runs; it is made beside and renamed, so that nobody sees half of one, and each use
checks that it is that commit, unchanged.
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
from deployments.git import fetch_commit, git
from deployments.secret_store import SecretStore, SecretUnavailable
from tasks.shared.rules.git import commit_id
from tasks.shared.rules.refusal import Refusal

CHECKOUT_RETENTION_DAYS = 7.0
"""A checkout that no run asked for in so many days is removed."""


def checkout(clone: str, commit: str, folder: Path, *, token: str = "") -> Path:
    """Return a folder with exactly that commit, below `folder`.

    Raises:
        Refusal: it is no full commit id.
        PortError: the repository does not answer, refuses, or does not have it; or what came is something else.
    """
    if not commit_id(commit, "RATCHET_COMMIT"):
        raise Refusal("names no commit", where="RATCHET_COMMIT", value=commit)
    target = folder / commit
    if target.exists() and not _is_clean_checkout(target, commit):
        target.rename(folder / f".other-{commit}-{time.time_ns()}")  # a run may have written into it
    if not target.exists():
        _create_checkout(target, clone, commit, token)
    os.utime(target)
    _remove_expired(folder)
    return target


def _create_checkout(place: Path, clone: str, commit: str, token: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = Path(tempfile.mkdtemp(prefix=".making-", dir=place.parent))
    try:
        git("init", "--quiet", folder=beside)
        fetch_commit(beside, clone, commit, token=token)
        git("checkout", "--quiet", "--detach", commit, folder=beside)
        if not _is_clean_checkout(beside, commit):
            raise Corrupt(f"the checkout of {commit} from {clone} is not that commit")
        with suppress(OSError):  # another run was first: its folder is checked below
            beside.rename(place)
        if not _is_clean_checkout(place, commit):
            raise Corrupt(f"{place} is not the commit {commit}")
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _is_clean_checkout(place: Path, commit: str) -> bool:
    """Whether the folder holds that commit and nothing else but what `.gitignore` lets be."""
    try:
        head = git("rev-parse", "HEAD", folder=place).decode().strip()
        return head == commit and not git("status", "--porcelain", folder=place).strip()
    except PortError:
        return False


def _remove_expired(folder: Path) -> None:
    for place in folder.iterdir():
        with suppress(OSError):
            if time.time() - place.stat().st_mtime > CHECKOUT_RETENTION_DAYS * 86_400:
                shutil.rmtree(place)


def main(variables: Mapping[str, str]) -> int:
    """Do what the variables say; the folder is printed, or the reason why there is none."""
    folder = Path(variables.get("RATCHET_CHECKOUTS") or Path(variables.get("RATCHET_STATE", ".ratchet")) / "checkouts")
    try:
        name = variables.get("RATCHET_CREDENTIALS", "")
        token = SecretStore(variables).value(name) if name else ""
        clone = variables["RATCHET_REPOSITORY"]
        print(checkout(clone, variables["RATCHET_COMMIT"], folder.resolve(), token=token))
    except KeyError as missing:
        print(f"error: {missing} is not set", file=sys.stderr)
        return 1
    except (PortError, Refusal, SecretUnavailable, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ))

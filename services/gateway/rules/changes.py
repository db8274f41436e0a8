"""A change in git as a host reports it, in one form for all hosts."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from blocks.records.identity import is_identified
from tasks.shared.rules.git import shortened
from tasks.shared.rules.refusal import Refusal

ChangeKind = Literal["push", "merge", "tag"]

MAX_PATHS = 3000
"""Maximum length of a stored list of changed files. A longer list is read from git when a rule needs it."""

MAX_BODY_BYTES = 26_214_400
"""Maximum size of a delivery's body by default: GitHub sends up to 25 MB, and nothing for a larger event."""
MAX_REF_BYTES = 1024
"""Maximum length of the name of a branch or tag. Git hosts allow about 250 bytes."""

_NOT_IN_A_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]|\.\.|//|@\{|(\A|/)\.|(\.lock|\A)(/|\Z)|[./]\Z|\A@\Z")
"""What git forbids in the name of a branch or tag (`git help check-ref-format`); surrogates are not UTF-8."""
_ADDRESS = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w.-]{1,66}")
_LOGIN = re.compile(r"[A-Za-z0-9_.:{}\[\]-]{2,64}")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]{1,100}(/[A-Za-z0-9_.-]{1,100}){1,9}")


@dataclass(frozen=True)
class RefChange:
    """A branch or tag that points to a new commit.

    `before` is the previous commit; "" when there was none, or the host does not name it. `paths` are the changed
    files, sorted; `paths_complete` is False when the host does not name all of them. `author` is who pushed or merged.

    Of a merge, `before` may be stale (the head of the branch when somebody last pushed to the request), and `head` is
    the last commit of the branch that was merged, "" when the host does not name it.
    """

    kind: ChangeKind
    repository: str
    ref: str
    commit: str
    before: str
    author: str
    paths: tuple[str, ...] = ()
    paths_complete: bool = False
    head: str = ""

    def text(self) -> str:
        """Return the change as JSON."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class NoChange:
    """A verified delivery of a kind that never starts a run: a ping, a deleted branch. `kind` is the host's term."""

    kind: str
    reason: str
    repository: str = ""
    ref: str = ""
    commit: str = ""


def change_from_json(text: str) -> RefChange:
    """Return the change that `RefChange.text` wrote."""
    fields = json.loads(text)
    return RefChange(**{**fields, "paths": tuple(fields["paths"])})


def repository_name(value: object, where: str) -> str:
    """Return `owner/name`, exactly as the host writes it. Raises Refusal for any other value."""
    if not isinstance(value, str) or not _REPOSITORY.fullmatch(value) or ".." in value:
        raise Refusal(
            "is not the name of a repository", where=where, value=shortened(value), remedy="owner/name is expected."
        )
    return value


def ref_name(value: object, where: str) -> str:
    """Return the name of a branch or tag, exactly as git has it. It may have any letters; `visible` shows them.

    Raises:
        Refusal: git allows no such name: it has a newline, a space, `..` or the like.
    """
    if not isinstance(value, str) or _NOT_IN_A_REF.search(value) or len(value.encode()) > MAX_REF_BYTES:
        raise Refusal("is no name of a branch or tag that git allows", where=where, value=shortened(value))
    return value


def split_ref(value: object, where: str) -> tuple[Literal["branch", "tag"], str]:
    """Return kind and name of a ref such as `refs/heads/main` or `refs/tags/v1`. Raises Refusal for other refs."""
    for prefix, kind in (("refs/heads/", "branch"), ("refs/tags/", "tag")):
        if isinstance(value, str) and value.startswith(prefix):
            return ("branch" if kind == "branch" else "tag"), ref_name(value[len(prefix) :], where)
    raise Refusal("is neither refs/heads/… nor refs/tags/…", where=where, value=shortened(value))


def author_name(addresses: Iterable[object], logins: Iterable[object]) -> str:
    """Return who an account is: the first address and the first login, as "login <address>"; else "unknown".

    Only what the host's fields for addresses and for logins hold is given: people choose other names freely, also one
    that is another's address. What is not written as an address or a login, or tells no one (GitLab writes "[REDACTED]"
    for a private address), is left out.
    """
    address, login = _first_match(_ADDRESS, addresses), _first_match(_LOGIN, logins)
    return f"{login} <{address}>" if login and address else address or login or "unknown"


def _first_match(form: re.Pattern[str], values: Iterable[object]) -> str:
    known = (each for each in values if isinstance(each, str) and form.fullmatch(each) and is_identified(each))
    return next(known, "")


def changed_paths(values: Iterable[object]) -> tuple[tuple[str, ...], bool]:
    """Return the paths, sorted, and whether the list is complete: only texts, and at most MAX_PATHS of them."""
    listed = list(values)
    paths = sorted({value for value in listed if isinstance(value, str) and 0 < len(value) <= 4096})
    complete = len(paths) <= MAX_PATHS and all(isinstance(value, str) and 0 < len(value) <= 4096 for value in listed)
    return (tuple(paths), True) if complete else ((), False)

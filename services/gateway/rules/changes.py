"""A change in git as a host reports it, in one form for all hosts."""

import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from tasks.shared.rules.git import shortened
from tasks.shared.rules.refusal import Refusal

ChangeKind = Literal["push", "merge", "tag"]

MAX_PATHS = 3000
"""Maximum length of a stored list of changed files. A longer list is read from git when a rule needs it."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/@+#=-]{0,199}")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]{1,100}(/[A-Za-z0-9_.-]{1,100}){1,9}")


@dataclass(frozen=True)
class RefChange:
    """A branch or tag that points to a new commit.

    `before` is the previous commit; "" when there was none, or the host does not name it. `paths` are the changed
    files, sorted; `paths_complete` is False when the host does not name all of them. `author` is who pushed or merged.
    """

    kind: ChangeKind
    repository: str
    ref: str
    commit: str
    before: str
    author: str
    paths: tuple[str, ...] = ()
    paths_complete: bool = False

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
    """Return the name of a branch or tag that can be matched, shown and logged unchanged.

    Raises:
        Refusal: the name has a newline, a space or another unexpected character.
    """
    plain = isinstance(value, str) and _NAME.fullmatch(value) and ".." not in value and "//" not in value
    if not plain or not isinstance(value, str):
        raise Refusal("is not a plain name of a branch or tag", where=where, value=shortened(value))
    return value


def split_ref(value: object, where: str) -> tuple[Literal["branch", "tag"], str]:
    """Return kind and name of a ref such as `refs/heads/main` or `refs/tags/v1`. Raises Refusal for other refs."""
    for prefix, kind in (("refs/heads/", "branch"), ("refs/tags/", "tag")):
        if isinstance(value, str) and value.startswith(prefix):
            return ("branch" if kind == "branch" else "tag"), ref_name(value[len(prefix) :], where)
    raise Refusal("is neither refs/heads/… nor refs/tags/…", where=where, value=shortened(value))


def author_name(*candidates: object) -> str:
    """Return the first candidate that is text, on one line and without invisible characters; else "unknown"."""
    for value in candidates:
        if isinstance(value, str):
            shown = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in value)
            if len(name := " ".join(shown.split())[:120]) >= 2:
                return name
    return "unknown"


def changed_paths(values: Iterable[object]) -> tuple[tuple[str, ...], bool]:
    """Return the paths, sorted, and whether the list is complete: only texts, and at most MAX_PATHS of them."""
    listed = list(values)
    paths = sorted({value for value in listed if isinstance(value, str) and 0 < len(value) <= 4096})
    complete = len(paths) <= MAX_PATHS and all(isinstance(value, str) and 0 < len(value) <= 4096 for value in listed)
    return (tuple(paths), True) if complete else ((), False)

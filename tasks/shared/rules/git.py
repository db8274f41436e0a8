"""Commits as git, its hosts and CI systems write them: their ids, and the people who made them."""

import re
from collections.abc import Iterator

from blocks.records.identity import normalized_name
from tasks.shared.rules.refusal import Refusal

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CREDIT = re.compile(
    r"^[\W_]*(?:co\W*(?:authored|developed)\W*by|(?:authored|written|signed\W*off)\W*by|paired?\W*with)"
    r"\s*[:=]\s*(?P<who>\S.*)",
    re.IGNORECASE,
)
"""A line of a commit's message that names another author, also in the middle of the message of a squashed commit."""
_WEB_COMMITTERS = {"github <noreply@github.com>"}
"""Committers of what people do on a host's pages; the author is the person."""


def commit_id(value: object, where: str) -> str:
    """Return a full commit id (SHA-1 or SHA-256, lower case), or "" for the one of zeros that means "none".

    Any other value is a Refusal.
    """
    if not isinstance(value, str) or not _COMMIT.fullmatch(value):
        raise Refusal(
            "is not a full commit id", where=where, value=shortened(value), remedy="Give 40 or 64 hexadecimal digits."
        )
    return "" if not value.strip("0") else value


def shortened(value: object) -> object:
    """Return a value for an error message: text is cut to 80 characters."""
    return value if not isinstance(value, str) or len(value) <= 80 else f"{value[:77]}..."


def people_of_commit(text: str) -> Iterator[str]:
    """Yield author, committer and co-authors of a commit: a line with the author, one with the committer, the message.

    Those who signed it off count, those who reviewed or tested it do not.
    """
    author, committer, *message = text.split("\n")
    yield author
    if normalized_name(committer) not in _WEB_COMMITTERS:
        yield committer
    unfolded = re.sub(r"\n[ \t]+", " ", "\n".join(message))  # the value of a trailer may go on in an indented line
    for line in (*message, *unfolded.split("\n")):
        if found := _CREDIT.match(line):
            yield found["who"].strip()

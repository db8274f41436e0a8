"""How each git host takes a commit's status and a comment under it: the calls, and the one place that makes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

import httpx

from blocks.common.errors import Rejected, Unavailable
from services.gateway.rules.payloads import Sender
from services.gateway.rules.report import CommitState

API_URLS: Mapping[Sender, str] = {
    "github": "https://api.github.com",
    "gitlab": "https://gitlab.com/api/v4",
    "bitbucket": "https://api.bitbucket.org/2.0",
    "gitea": "",
}
"""Where a host's API is, unless triggers.yaml says otherwise; a Gitea is always somebody's own."""

_GITLAB_STATES: Mapping[CommitState, str] = {
    "pending": "running", "success": "success", "failure": "failed", "error": "canceled"
}  # fmt: skip
_BITBUCKET_STATES: Mapping[CommitState, str] = {
    "pending": "INPROGRESS", "success": "SUCCESSFUL", "failure": "FAILED", "error": "STOPPED"
}  # fmt: skip


@dataclass(frozen=True)
class CommitStatus:
    """What is said of a commit: `context` tells it from other statuses of the same commit."""

    commit: str
    state: CommitState
    context: str
    description: str
    url: str


@dataclass(frozen=True)
class ApiCall:
    """One POST to a host's API: its path, and the JSON that goes with it."""

    path: str
    content: Mapping[str, object]


def status_call(sender: Sender, repository: str, status: CommitStatus) -> ApiCall:
    """Return the call that sets a commit's status; the same context again replaces what was said before."""
    commit, said = status.commit, status.description
    if sender == "gitlab":
        content = {"state": _GITLAB_STATES[status.state], "name": status.context, "target_url": status.url}
        return ApiCall(f"/projects/{quote(repository, safe='')}/statuses/{commit}", {**content, "description": said})
    if sender == "bitbucket":
        content = {"key": status.context[:40], "name": status.context, "state": _BITBUCKET_STATES[status.state]}
        path = f"/repositories/{repository}/commit/{commit}/statuses/build"
        return ApiCall(path, {**content, "url": status.url, "description": said})
    content = {"state": status.state, "context": status.context, "target_url": status.url}
    return ApiCall(f"/repos/{repository}/statuses/{commit}", {**content, "description": said})


def comment_call(sender: Sender, repository: str, commit: str, markdown: str) -> ApiCall | None:
    """Return the call that puts a comment under a commit, or None where the host has no such thing."""
    if sender == "gitlab":
        return ApiCall(
            f"/projects/{quote(repository, safe='')}/repository/commits/{commit}/comments", {"note": markdown}
        )
    if sender == "bitbucket":
        return ApiCall(f"/repositories/{repository}/commit/{commit}/comments", {"content": {"raw": markdown}})
    if sender == "github":
        return ApiCall(f"/repos/{repository}/commits/{commit}/comments", {"body": markdown})
    return None  # Gitea comments on issues and pull requests only


def send_call(sender: Sender, api: str, token: str, call: ApiCall, seconds: float = 15.0) -> None:
    """Make the call.

    Raises:
        Unavailable: the host does not answer, or is busy; the call may be repeated.
        Rejected: it refuses; the message never holds the token.
    """
    bearer = {"private-token": token} if sender == "gitlab" else {"authorization": f"Bearer {token}"}
    headers = {**bearer, "accept": "application/json", "user-agent": "ratchet-gateway"}
    place = f"{sender} {call.path}"
    try:
        answer = httpx.post(
            f"{api}{call.path}", json=dict(call.content), headers=headers, timeout=seconds, follow_redirects=False
        )
    except httpx.HTTPError as cause:
        raise Unavailable(f"{place}: no answer: {type(cause).__name__}") from cause
    if answer.status_code >= 500 or answer.status_code == 429:
        raise Unavailable(f"{place}: answers {answer.status_code}")
    if not answer.is_success:
        raise Rejected(f"{place}: answers {answer.status_code}: {answer.text[:200]}")

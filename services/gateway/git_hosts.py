"""API calls to each git host: set a commit status, add a commit comment."""

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
"""Default API URLs. Gitea has none, because every Gitea is self-hosted; triggers.yaml can override each."""

_GITLAB_STATES: Mapping[CommitState, str] = {
    "pending": "running", "success": "success", "failure": "failed", "error": "canceled"
}  # fmt: skip
_BITBUCKET_STATES: Mapping[CommitState, str] = {
    "pending": "INPROGRESS", "success": "SUCCESSFUL", "failure": "FAILED", "error": "STOPPED"
}  # fmt: skip


@dataclass(frozen=True)
class CommitStatus:
    """The status of a commit. `context` distinguishes it from other statuses of the same commit."""

    commit: str
    state: CommitState
    context: str
    description: str
    url: str


@dataclass(frozen=True)
class ApiCall:
    """One POST request to a host's API: its path and its JSON body."""

    path: str
    content: Mapping[str, object]


def status_call(sender: Sender, repository: str, status: CommitStatus) -> ApiCall:
    """Return the call that sets a commit's status. A status with the same context is replaced."""
    commit, description = status.commit, status.description
    if sender == "gitlab":
        content = {"state": _GITLAB_STATES[status.state], "name": status.context, "target_url": status.url}
        return ApiCall(
            f"/projects/{quote(repository, safe='')}/statuses/{commit}", {**content, "description": description}
        )
    if sender == "bitbucket":
        content = {"key": status.context[:40], "name": status.context, "state": _BITBUCKET_STATES[status.state]}
        path = f"/repositories/{repository}/commit/{commit}/statuses/build"
        return ApiCall(path, {**content, "url": status.url, "description": description})
    content = {"state": status.state, "context": status.context, "target_url": status.url}
    return ApiCall(f"/repos/{repository}/statuses/{commit}", {**content, "description": description})


def comment_call(sender: Sender, repository: str, commit: str, markdown: str) -> ApiCall | None:
    """Return the call that adds a comment to a commit; None for a host without commit comments."""
    if sender == "gitlab":
        return ApiCall(
            f"/projects/{quote(repository, safe='')}/repository/commits/{commit}/comments", {"note": markdown}
        )
    if sender == "bitbucket":
        return ApiCall(f"/repositories/{repository}/commit/{commit}/comments", {"content": {"raw": markdown}})
    if sender == "github":
        return ApiCall(f"/repos/{repository}/commits/{commit}/comments", {"body": markdown})
    return None  # Gitea has comments on issues and pull requests only


def send_call(sender: Sender, api: str, token: str, call: ApiCall, seconds: float = 15.0) -> None:
    """Send a call to the host's API.

    Raises:
        Unavailable: the host does not respond, or is busy; the call may be repeated.
        Rejected: the host refuses the call. The message never contains the token.
    """
    bearer = {"private-token": token} if sender == "gitlab" else {"authorization": f"Bearer {token}"}
    headers = {**bearer, "accept": "application/json", "user-agent": "ratchet-gateway"}
    place = f"{sender} {call.path}"
    try:
        response = httpx.post(
            f"{api}{call.path}", json=dict(call.content), headers=headers, timeout=seconds, follow_redirects=False
        )
    except httpx.HTTPError as cause:
        raise Unavailable(f"{place}: no response: {type(cause).__name__}") from cause
    if response.status_code >= 500 or response.status_code == 429:
        raise Unavailable(f"{place}: status {response.status_code}")
    if not response.is_success:
        raise Rejected(f"{place}: status {response.status_code}: {response.text[:200]}")

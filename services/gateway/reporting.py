"""Report the state of triggered runs to the git host: a commit status while they run, and a comment at the end.

After a crash the status is sent again; the host replaces a status with the same context. A comment could be duplicated
if the gateway dies between sending and recording it, so it is sent last and only for finished runs.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event
from urllib.parse import quote

import httpx

from blocks.common.errors import PortError, Rejected, TransientError, Unavailable
from blocks.inbox.base import Delivery, Inbox, InboxNote, StartedRun, UnreportedRun
from deployments.secret_store import SecretStore, SecretUnavailable
from services.gateway.rules.changes import change_from_json
from services.gateway.rules.payloads import SENDERS, Sender
from services.gateway.rules.report import CommitState, RunReport, commit_state, run_markdown, status_line
from services.gateway.rules.rules import Triggers

_log = logging.getLogger("ratchet.gateway")

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

MIN_POLL_SECONDS = 5.0
MAX_POLL_SECONDS = 60.0
"""Seconds between two polls of a run: 5 at first, up to 60 while nothing changes."""

ApiCall = tuple[str, Mapping[str, object]]
"""One POST request to a host's API: its path and its JSON body."""
ReadRun = Callable[[StartedRun], RunReport | None]
"""Returns the state of a run; None when Prefect no longer has it. Raises Unavailable."""


@dataclass
class Reporter:
    """Polls the runs whose end has not been reported."""

    inbox: Inbox
    triggers: Triggers
    secret_store: SecretStore
    read_run: ReadRun
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    wait_until_idle: Callable[[], None] = lambda: None
    monotonic: Callable[[], float] = time.monotonic
    _noted_runs: set[str] = field(default_factory=set)
    _pauses: dict[str, tuple[float, float]] = field(default_factory=dict)

    def run(self, stop: Event) -> None:
        """Work until `stop` is set. No error ends the loop."""
        while not stop.wait(MIN_POLL_SECONDS):
            try:
                self.step()
            except PortError as cause:
                _log.warning("reports wait: %s", cause)
            except Exception:
                _log.exception("internal error in the reporter; continuing")

    def step(self) -> int:
        """Report the changes of each run, and return how many reports were made."""
        reports = 0
        for unreported in self.inbox.unreported_runs(1_000):
            pause, due = self._pauses.get(unreported.run.run_id, (MIN_POLL_SECONDS / 2, 0.0))
            if self.monotonic() < due:
                continue
            new = False
            self.wait_until_idle()
            try:
                new = self._report(unreported)
            except (TransientError, SecretUnavailable) as cause:
                _log.warning("the report of %s is delayed: %s", unreported.run.run_id, cause)
            reports += new
            pause = MIN_POLL_SECONDS if new else min(2 * pause, MAX_POLL_SECONDS)
            self._pauses[unreported.run.run_id] = pause, self.monotonic() + pause - 1.0
        return reports

    def _report(self, unreported: UnreportedRun) -> bool:
        view = self.read_run(unreported.run)
        if view is None:
            self.inbox.record_report(unreported.run.run_id, "gone", "Prefect no longer has this run.\n",
                              self.clock(), final=True)  # fmt: skip
            return True
        state = "waits" if view.state_name == "Suspended" else commit_state(view)
        if state == unreported.last_status and not view.ended:
            return False
        markdown = run_markdown(change_from_json(unreported.delivery.change), view) if view.ended else ""
        self._report_to_host(unreported, view, markdown)
        self.inbox.record_report(view.run_id, state, markdown, self.clock(), final=view.ended)
        if view.ended:
            self._pauses.pop(view.run_id, None)
        return True

    def _report_to_host(self, unreported: UnreportedRun, view: RunReport, markdown: str) -> None:
        """Send status and comment, if a token is configured. A refusal of the host is noted once per run."""
        delivery = unreported.delivery
        if (sender := SENDERS.get(delivery.sender)) is None:
            raise Rejected(f"{delivery.sender!r} is not a known git host")
        rules = self.triggers.senders.get(sender)
        api = (rules.api or API_URLS[sender]).rstrip("/") if rules else ""
        token = self.secret_store.value(rules.token) if rules and rules.token else ""
        if not (rules and api and token):
            return
        calls = [_status_call(sender, delivery, view)]
        if rules.comments and markdown and (comment := _comment_call(sender, delivery, markdown)):
            calls.append(comment)
        try:
            for path, content in calls:
                _send(sender, api, path, token, content)
        except Rejected as cause:
            if view.run_id not in self._noted_runs:
                self._noted_runs.add(view.run_id)
                self.inbox.add_note(InboxNote(delivery.id, "unreported", str(cause), self.clock()))


def status_context(view: RunReport) -> str:
    """Return the name of the status on the commit: one for each deployment and model."""
    model = view.parameters.get("model", "")
    return f"ratchet/{view.deployment}" + (f"/{model}" if model else "")


def _status_call(sender: Sender, delivery: Delivery, view: RunReport) -> ApiCall:
    """Return the call that sets a commit's status. A status with the same context is replaced."""
    commit, repository, state = delivery.commit, delivery.repository, commit_state(view)
    context, description = status_context(view), status_line(view)
    if sender == "gitlab":
        content = {"state": _GITLAB_STATES[state], "name": context, "target_url": view.url}
        path = f"/projects/{quote(repository, safe='')}/statuses/{commit}"
        return path, {**content, "description": description}
    if sender == "bitbucket":
        content = {"key": context[:40], "name": context, "state": _BITBUCKET_STATES[state], "url": view.url}
        path = f"/repositories/{repository}/commit/{commit}/statuses/build"
        return path, {**content, "description": description}
    content = {"state": state, "context": context, "target_url": view.url}
    return f"/repos/{repository}/statuses/{commit}", {**content, "description": description}


def _comment_call(sender: Sender, delivery: Delivery, markdown: str) -> ApiCall | None:
    """Return the call that adds a comment to a commit; None for a host without commit comments."""
    repository, commit = delivery.repository, delivery.commit
    if sender == "gitlab":
        return f"/projects/{quote(repository, safe='')}/repository/commits/{commit}/comments", {"note": markdown}
    if sender == "bitbucket":
        return f"/repositories/{repository}/commit/{commit}/comments", {"content": {"raw": markdown}}
    if sender == "github":
        return f"/repos/{repository}/commits/{commit}/comments", {"body": markdown}
    return None  # Gitea has comments on issues and pull requests only


def _send(sender: Sender, api: str, path: str, token: str, content: Mapping[str, object]) -> None:
    """Send a call to the host's API.

    Raises:
        Unavailable: the host does not respond, or is busy; the call may be repeated.
        Rejected: the host refuses the call. The message never contains the token.
    """
    bearer = {"private-token": token} if sender == "gitlab" else {"authorization": f"Bearer {token}"}
    headers = {**bearer, "accept": "application/json", "user-agent": "ratchet-gateway"}
    place, url = f"{sender} {path}", f"{api}{path}"
    try:
        response = httpx.post(url, json=dict(content), headers=headers, timeout=15.0, follow_redirects=False)
    except httpx.HTTPError as cause:
        raise Unavailable(f"{place}: no response: {type(cause).__name__}") from cause
    if response.status_code >= 500 or response.status_code == 429:
        raise Unavailable(f"{place}: status {response.status_code}")
    if not response.is_success:
        raise Rejected(f"{place}: status {response.status_code}: {response.text[:200]}")

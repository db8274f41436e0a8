"""Follows the runs that changes started, and tells the git host how they stand: a commit status, in the end a report.

A status is sent again after a kill; the host replaces the one of the same context. A comment could come twice, when
the gateway dies between sending it and writing that down: so it is sent last, and only of runs that have ended.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event
from typing import cast, get_args
from uuid import UUID

import httpx

from blocks.common.errors import PortError, Rejected, TransientError, Unavailable
from blocks.inbox.base import Inbox, Note, UnreportedRun
from deployments.secret_store import SecretStore, SecretUnavailable
from services.gateway.git_hosts import API_URLS, CommitStatus, comment_call, send_call, status_call
from services.gateway.rules.changes import change_from_json
from services.gateway.rules.payloads import Sender
from services.gateway.rules.report import RunReport, commit_state, run_markdown, status_line
from services.gateway.rules.rules import HostRules, Triggers
from services.gateway.run_starter import PrefectConnection

_log = logging.getLogger("ratchet.gateway")

MIN_POLL_SECONDS = 5.0
MAX_POLL_SECONDS = 60.0
"""How often a run is looked at: by 5 s at first, by the minute when nothing has changed for a while."""

ReadRun = Callable[[UnreportedRun], RunReport | None]
"""Returns how a run stands, or None when Prefect does not know it any more. Raises Unavailable."""


@dataclass
class Reporter:
    """Looks at the runs whose end has not been reported, again and again."""

    inbox: Inbox
    triggers: Triggers
    vault: SecretStore
    read_run: ReadRun
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    give_way: Callable[[], None] = lambda: None
    monotonic: Callable[[], float] = time.monotonic
    _noted_runs: set[str] = field(default_factory=set)
    _pauses: dict[str, tuple[float, float]] = field(default_factory=dict)

    def run(self, stop: Event) -> None:
        """Work until `stop`. No error ends it."""
        while not stop.wait(MIN_POLL_SECONDS):
            try:
                self.step()
            except PortError as cause:
                _log.warning("reports wait: %s", cause)
            except Exception:
                _log.exception("the reporter met an error of ours; it goes on")

    def step(self) -> int:
        """Report what is new of each run, and return how many reports were made."""
        made = 0
        for watched in self.inbox.unreported_runs(1_000):
            pause, due = self._pauses.get(watched.run.run_id, (MIN_POLL_SECONDS / 2, 0.0))
            if self.monotonic() < due:
                continue
            new = False
            self.give_way()
            try:
                new = self._report(watched)
            except (TransientError, SecretUnavailable) as cause:
                _log.warning("the report of %s waits: %s", watched.run.run_id, cause)
            made += new
            pause = MIN_POLL_SECONDS if new else min(2 * pause, MAX_POLL_SECONDS)
            self._pauses[watched.run.run_id] = pause, self.monotonic() + pause - 1.0
        return made

    def _report(self, watched: UnreportedRun) -> bool:
        view = self.read_run(watched)
        if view is None:
            self.inbox.report(watched.run.run_id, "gone", "Prefect does not know this run any more.\n",
                              self.clock(), final=True)  # fmt: skip
            return True
        said = "waits" if view.state_name == "Suspended" else commit_state(view)
        if said == watched.last and not view.ended:
            return False
        markdown = run_markdown(change_from_json(watched.delivery.change), view) if view.ended else ""
        self._report_to_host(watched, view, markdown)
        self.inbox.report(view.run_id, said, markdown, self.clock(), final=view.ended)
        if view.ended:
            self._pauses.pop(view.run_id, None)
        return True

    def _report_to_host(self, watched: UnreportedRun, view: RunReport, markdown: str) -> None:
        """Send status and comment, where a token is configured; a refusal of the host is noted, once a run."""
        delivery, sender = watched.delivery, _known_sender(watched.delivery.sender)
        rules = self.triggers.senders.get(sender)
        api = (rules.api or API_URLS[sender]).rstrip("/") if rules else ""
        token = self.vault.value(rules.token) if rules and rules.token else ""
        if not (rules and api and token):
            return
        status = CommitStatus(delivery.commit, commit_state(view), status_context(view), status_line(view), view.url)
        try:
            send_call(sender, api, token, status_call(sender, delivery.repository, status))
            self._comment(rules, api, token, watched, markdown)
        except Rejected as cause:
            if view.run_id not in self._noted_runs:
                self._noted_runs.add(view.run_id)
                self.inbox.note(Note(delivery.id, "unreported", str(cause), self.clock()))

    def _comment(self, rules: HostRules, api: str, token: str, watched: UnreportedRun, markdown: str) -> None:
        sender, delivery = _known_sender(watched.delivery.sender), watched.delivery
        call = comment_call(sender, delivery.repository, delivery.commit, markdown)
        if rules.comments and markdown and call is not None:
            send_call(sender, api, token, call)


def status_context(view: RunReport) -> str:
    """Return what the status is called on the commit: one for each rule and model."""
    model = view.parameters.get("model", "")
    return f"ratchet/{view.deployment}" + (f"/{model}" if model else "")


def _known_sender(name: str) -> Sender:
    if name not in get_args(Sender):
        raise Rejected(f"{name!r} is no git host that we know")
    return cast(Sender, name)


def prefect_run_reader(ui_url: str) -> ReadRun:
    """Return what looks a run up over the Prefect API; `ui_url` is where people read of it."""

    connection = PrefectConnection()

    def look(watched: UnreportedRun) -> RunReport | None:
        from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
        from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

        run_id = UUID(watched.run.run_id)
        try:
            client = connection.open()
            run = client.read_flow_run(run_id)
            mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
            ended = run.state is not None and run.state.is_final()
            artifacts = client.read_artifacts(artifact_filter=mine) if ended else []
        except ObjectNotFound:
            return None
        except (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError) as cause:
            connection.close()
            raise Unavailable(f"Prefect does not answer: {type(cause).__name__}") from cause
        state = run.state
        return RunReport(
            run_id=str(run.id),
            url=f"{ui_url}/runs/flow-run/{run.id}",
            deployment=watched.run.deployment,
            rule_name=watched.run.rule,
            state_type=state.type.value if state else "PENDING",
            state_name=str(state.name) if state else "Pending",
            message=(state.message or "") if state else "",
            parameters=run.parameters,
            artifacts={str(each.key): str(each.data) for each in artifacts if each.type == "markdown"},
        )

    return look

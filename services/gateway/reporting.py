"""Report the state of triggered runs to the git host: a commit status while they run, and a comment at the end.

After a crash the status is sent again; the host replaces a status with the same context. A comment could be duplicated
if the gateway dies between sending and recording it, so it is sent last and only for finished runs.
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
from blocks.inbox.base import Inbox, InboxNote, UnreportedRun
from deployments.flow_runs import outcome_of_run
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
"""Seconds between two polls of a run: 5 at first, up to 60 while nothing changes."""

ReadRun = Callable[[UnreportedRun], RunReport | None]
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
        view = self.read_run(unreported)
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
        delivery, sender = unreported.delivery, _known_sender(unreported.delivery.sender)
        rules = self.triggers.senders.get(sender)
        api = (rules.api or API_URLS[sender]).rstrip("/") if rules else ""
        token = self.secret_store.value(rules.token) if rules and rules.token else ""
        if not (rules and api and token):
            return
        status = CommitStatus(delivery.commit, commit_state(view), status_context(view), status_line(view), view.url)
        try:
            send_call(sender, api, token, status_call(sender, delivery.repository, status))
            self._comment(rules, api, token, unreported, markdown)
        except Rejected as cause:
            if view.run_id not in self._noted_runs:
                self._noted_runs.add(view.run_id)
                self.inbox.add_note(InboxNote(delivery.id, "unreported", str(cause), self.clock()))

    def _comment(self, rules: HostRules, api: str, token: str, unreported: UnreportedRun, markdown: str) -> None:
        sender, delivery = _known_sender(unreported.delivery.sender), unreported.delivery
        call = comment_call(sender, delivery.repository, delivery.commit, markdown)
        if rules.comments and markdown and call is not None:
            send_call(sender, api, token, call)


def status_context(view: RunReport) -> str:
    """Return the name of the status on the commit: one for each deployment and model."""
    model = view.parameters.get("model", "")
    return f"ratchet/{view.deployment}" + (f"/{model}" if model else "")


def _known_sender(name: str) -> Sender:
    if name not in get_args(Sender):
        raise Rejected(f"{name!r} is not a known git host")
    return cast(Sender, name)


def prefect_run_reader(ui_url: str) -> ReadRun:
    """Return a function that reads a run from the Prefect API. `ui_url` is the address of the Prefect UI."""
    connection = PrefectConnection()

    def read_run(unreported: UnreportedRun) -> RunReport | None:
        from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
        from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

        run_id = UUID(unreported.run.run_id)
        try:
            client = connection.open()
            run = client.read_flow_run(run_id)
            of_this_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
            ended = run.state is not None and run.state.is_final()
            artifacts = client.read_artifacts(artifact_filter=of_this_run) if ended else []
        except ObjectNotFound:
            return None
        except (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError) as cause:
            connection.close()
            raise Unavailable(f"Prefect does not respond: {type(cause).__name__}") from cause
        state = run.state
        return RunReport(
            run_id=str(run.id),
            url=f"{ui_url}/runs/flow-run/{run.id}",
            deployment=unreported.run.deployment,
            rule_name=unreported.run.rule,
            state_type=state.type.value if state else "PENDING",
            state_name=str(state.name) if state else "Pending",
            message=(state.message or "") if state else "",
            parameters=run.parameters,
            artifacts={str(each.key): str(each.data) for each in artifacts if each.type == "markdown"},
            outcome=outcome_of_run(run) if ended else "",
        )

    return read_run

"""Reports to a git host about the runs that its pushes started, recorded by a server that replaces its API."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from markdown_it import MarkdownIt

from blocks.common.errors import Unavailable
from blocks.inbox.base import Delivery, ProcessingOutcome, StartedRun
from blocks.inbox.fake import FakeInbox
from deployments.secret_store import SecretStore
from ratchet.commands.gateway import delivery_text
from services.gateway.reporting import MAX_POLL_SECONDS, MIN_POLL_SECONDS, Reporter
from services.gateway.rules.changes import RefChange
from services.gateway.rules.payloads import Sender
from services.gateway.rules.report import MAX_COMMENT_LENGTH, RunReport, commit_state, run_markdown, status_line
from tests.fakes.git_hosts import Recorded, recording_api
from tests.fixtures.clocks import Clock
from tests.fixtures.hooks import C1, C2, triggers

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
CHANGE = RefChange("push", "acme/models", "main", C2, C1, "ada@acme.example", ("models/churn/train.py",), True)
EVALUATION = "# ✅ Pass: churn version 4\n\n| metric | challenger | champion | bound |\n|:--|--:|--:|--:|\n| auc | 0.84 | 0.82 | ≥ 0.8 |\n"
CHECKS = "# Checks `churn`: ✅ passed\n\n7,043 rows (at least 1,000 needed), 18 of 18 expectations hold.\n"
RUNNING = RunReport("run-1", "http://prefect/runs/flow-run/run-1", "retrain/retrain", "changed models", "RUNNING", "Running", "",
                  {"model": "churn", "tier": "staging"}, {})  # fmt: skip
WAITS = replace(RUNNING, state_type="PAUSED", state_name="Suspended")
DEPLOYED = replace(RUNNING, state_type="COMPLETED", state_name="Completed", message="Deployed: version 4 serves", outcome="deployed",
                   artifacts={"evaluation": EVALUATION, "validation": CHECKS, "evaluation-plot": "no text"})  # fmt: skip
HELD = replace(DEPLOYED, outcome="held", message="Held: auc is 0.7, below 0.8.")


@pytest.fixture
def api() -> Iterator[Recorded]:
    with recording_api() as recorded:
        yield recorded


class Told:
    """A reporter over an inbox with one started run, whose state is `view`."""

    def __init__(self, api: Recorded | None, sender: Sender = "github") -> None:
        rules = triggers()
        if api is not None:
            told = rules.senders[sender].model_copy(update={"api": api.url, "token": "env:TOKEN", "comments": True})
            rules = rules.model_copy(update={"senders": {**rules.senders, sender: told}})
        self.inbox, self.view = FakeInbox(), RUNNING
        delivery = Delivery(f"{sender}:d-1", sender, "push", "acme/models", "main", C2, "d" * 64, CHANGE.text(), NOW)
        started = ProcessingOutcome("started", "1 run", (StartedRun("run-1", "changed models", "retrain/retrain"),))
        self.inbox.receive(delivery, outcome=started)
        self.clock, self.looks = Clock(), list[float]()
        secret_store = SecretStore({"TOKEN": "api-token"})
        self.reporter = Reporter(self.inbox, rules, secret_store, self.look, lambda: NOW, monotonic=self.clock)

    def look(self, watched: StartedRun) -> RunReport | None:
        assert watched.run_id == "run-1"
        self.looks.append(self.clock())
        return self.view

    def step(self, view: RunReport) -> int:
        self.view = view
        self.clock.sleep(MAX_POLL_SECONDS)
        return self.reporter.step()


def test_github_is_told_when_a_run_begins_waits_and_ends_with_a_comment(api: Recorded) -> None:
    told = Told(api)
    assert [told.step(RUNNING), told.step(RUNNING), told.step(WAITS), told.step(DEPLOYED), told.step(DEPLOYED)] == [
        1,
        0,
        1,
        1,
        0,
    ]
    path = f"/repos/acme/models/statuses/{C2}"
    url, context = RUNNING.url, "ratchet/retrain/retrain/churn"
    said = [("pending", "changed models: Running"), ("pending", "changed models: waits for approval"),
            ("success", "changed models: Deployed: version 4 serves")]  # fmt: skip
    statuses = [{"state": state, "context": context, "target_url": url, "description": text} for state, text in said]
    assert [(place, content) for place, _, content in api.calls[:3]] == [(path, each) for each in statuses]
    assert all(headers["authorization"] == "Bearer api-token" for _, headers, _ in api.calls)
    place, _, comment = api.calls[3]
    assert (place, comment["body"]) == (f"/repos/acme/models/commits/{C2}/comments", run_markdown(CHANGE, DEPLOYED))
    assert len(api.calls) == 4
    assert told.inbox.unreported_runs() == ()
    assert "Deployed" in delivery_text(told.inbox, "github:d-1")


HOSTS = {
    "gitlab": (f"/projects/acme%2Fmodels/statuses/{C2}", {"state": "failed", "name": "ratchet/retrain/retrain/churn"},
               f"/projects/acme%2Fmodels/repository/commits/{C2}/comments", "private-token"),
    "bitbucket": (f"/repositories/acme/models/commit/{C2}/statuses/build", {"state": "FAILED", "key": "ratchet/retrain/retrain/churn"},
                  f"/repositories/acme/models/commit/{C2}/comments", "authorization"),
    "gitea": (f"/repos/acme/models/statuses/{C2}", {"state": "failure", "context": "ratchet/retrain/retrain/churn"}, None, "authorization"),
}  # fmt: skip


@pytest.mark.parametrize("sender", HOSTS)
def test_each_host_is_told_in_its_own_words(api: Recorded, sender: str) -> None:
    status_path, content, comment_path, header = HOSTS[sender]
    Told(api, sender).step(HELD)
    place, headers, body = api.calls[0]
    assert place == status_path
    assert body.items() >= content.items()
    assert "api-token" in headers[header]
    assert [path for path, _, _ in api.calls[1:]] == ([comment_path] if comment_path else [])


def test_a_host_that_is_busy_is_told_later_and_one_that_refuses_is_noted(api: Recorded) -> None:
    told = Told(api)
    api.status = 503
    assert told.step(DEPLOYED) == 0
    assert len(told.inbox.unreported_runs()) == 1
    api.status = 403
    assert told.step(DEPLOYED) == 1
    (note,) = told.inbox.notes()
    assert (note.kind, "status 403" in note.text, "api-token" in note.text) == ("unreported", True, False)
    assert told.inbox.report_text("run-1") == run_markdown(CHANGE, DEPLOYED), "the report is kept all the same"


def test_without_a_token_nothing_is_sent_and_the_report_is_kept() -> None:
    told = Told(None)
    assert told.step(HELD) == 1
    assert told.inbox.report_text("run-1").startswith("# ⛔ changed models: held")


def test_a_run_that_prefect_does_not_know_any_more_is_watched_no_longer(api: Recorded) -> None:
    told = Told(api)
    told.view = None  # type: ignore[assignment]  # what `look` returns then
    assert told.reporter.step() == 1
    assert (told.inbox.unreported_runs(), api.calls) == ((), [])


def test_a_run_in_which_nothing_changes_is_looked_at_less_and_less_often(api: Recorded) -> None:
    told = Told(api)
    told.step(RUNNING)
    for _ in range(40):
        told.clock.sleep(MIN_POLL_SECONDS)
        assert told.reporter.step() == 0
    pauses = [then - first for first, then in pairwise(told.looks)]
    assert pauses == [5, 10, 20, 40, 60, 60]
    assert len(api.calls) == 1


def test_while_prefect_is_away_the_run_stays_watched(api: Recorded) -> None:
    told = Told(api)

    def away(_: Any) -> RunReport:
        raise Unavailable("Prefect does not answer")

    told.reporter.read_run = away
    assert told.reporter.step() == 0
    assert len(told.inbox.unreported_runs()) == 1


STATES = {
    ("RUNNING", ""): "pending", ("SCHEDULED", ""): "pending", ("PAUSED", ""): "pending",
    ("COMPLETED", "deployed"): "success", ("COMPLETED", "not_promotable"): "success",
    ("COMPLETED", "inconclusive"): "success", ("COMPLETED", ""): "success", ("COMPLETED", "held"): "failure",
    ("COMPLETED", "expired"): "failure", ("CANCELLED", "rejected"): "failure", ("COMPLETED", "rolled_back"): "success",
    ("FAILED", ""): "failure", ("CRASHED", ""): "error", ("CANCELLED", ""): "error",
}  # fmt: skip


@pytest.mark.parametrize(
    ("state", "expected"), STATES.items(), ids=["-".join(filter(None, each)).lower() for each in STATES]
)
def test_each_end_of_a_run_is_a_state_of_the_commit(state: tuple[str, str], expected: str) -> None:
    assert commit_state(replace(RUNNING, state_type=state[0], outcome=state[1])) == expected


def test_the_report_shows_change_run_metrics_and_data() -> None:
    text = run_markdown(CHANGE, DEPLOYED)
    assert text.splitlines()[0] == "# ✅ changed models: deployed"
    for words in (C2, "by ada&#64;&#8203;acme.example", "(<http://prefect/runs/flow-run/run-1>)", "# ✅ Pass: churn version 4",
                  "| auc | 0.84 | 0.82 | ≥ 0.8 |", "# Checks `churn`", "| tier | `staging` |"):  # fmt: skip
        assert words in text
    assert text.index("0.84") < text.index("7,043 rows")
    assert "no text" not in text


def test_a_report_without_metrics_says_so_and_a_long_one_is_cut() -> None:
    failed = replace(RUNNING, state_type="FAILED", state_name="Failed", message="the data is refused")
    assert "has no report" in run_markdown(CHANGE, failed)
    assert (
        len(run_markdown(CHANGE, replace(DEPLOYED, artifacts={"evaluation": "x" * 100_000}))) < MAX_COMMENT_LENGTH + 100
    )


def test_what_a_stranger_wrote_makes_no_markup_and_mentions_nobody() -> None:
    evil = replace(
        DEPLOYED, message="<img src=x> @everyone [x](http://evil) | a\n# b", rule_name="`rm`|x", artifacts={}
    )
    text = run_markdown(replace(CHANGE, author="@team <b>"), evil)
    assert not any(bad in text for bad in ("<img", "@everyone", "http://evil", "[x](", "\n# b", "@team", "<b>"))
    assert len(status_line(replace(evil, message="y" * 300))) == 140


def test_what_prefect_returns_as_an_artifact_is_shown_as_code() -> None:
    """Whoever may write to Prefect's API can write it, and the comment has the gateway's token."""
    evil = "# Approved\n@org/everyone ![x](https://evil.example/t.png)\n```\n/approve\n<img src=x>\u202e"
    tokens = MarkdownIt("commonmark").parse(run_markdown(CHANGE, replace(DEPLOYED, artifacts={"evaluation": evil})))
    (block,) = (each for each in tokens if each.type == "fence")
    assert block.content == evil.replace("\u202e", "\\u202e") + "\n"
    others = "".join(each.content for each in tokens if each is not block)
    assert not any(bad in others for bad in ("evil", "@org", "/approve"))

"""The commands of the gateway, and its process on a real port."""

import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import pytest

from blocks.inbox.base import Delivery, Inbox, InboxNote, ProcessingOutcome, StartedRun
from local.processes import start_process, wait_until_ready
from services.gateway.settings import TRIGGERS, open_inbox, read_triggers
from tests.checkout import ROOT
from tests.fakes.git_hosts import Remote
from tests.fixtures.command_line import ratchet
from tests.fixtures.hooks import C2, SECRET, hook, push
from tests.fixtures.hooks import TRIGGERS as RULES
from tests.fixtures.trust_files import trust_local
from tests.waiting import wait_for

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)

PUSH = Delivery("github:d-1", "github", "push", "acme/models", "main", C2, "d" * 64, "", NOW)


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inbox:
    trust_local(tmp_path, monkeypatch)
    return open_inbox("local")


def said(*arguments: str, code: int = 0) -> str:
    done = ratchet("gateway", *arguments)
    assert done.exit_code == code
    return done.stdout if code == 0 else done.stdout + done.stderr


def test_what_came_is_listed_with_its_end_and_reason(inbox: Inbox) -> None:
    assert said("list") == "nothing has been delivered\n"
    assert said("notes") == "there are no notes\n"
    assert "there is no delivery 'github:d-1'" in said("show", "github:d-1", code=2)
    assert not Path(os.environ["RATCHET_STATE"]).exists(), "a command that reads creates nothing"
    inbox.receive(
        PUSH,
        outcome=ProcessingOutcome(
            "started", "retrain/retrain by the rule 'x'", (StartedRun("r-1", "x", "retrain/retrain"),)
        ),
    )
    inbox.receive(
        Delivery("github:d-2", "github", "ping", "", "", "", "e" * 64, "", NOW),
        outcome=ProcessingOutcome("ignored", "a ping"),
    )
    first, second = said("list").splitlines()
    assert "github:d-2" in first
    assert first.endswith("IGNORED: a ping")
    assert all(words in second for words in ("2026-11-21 10:00:00", "acme/models", C2[:12], "STARTED: retrain/retrain"))
    assert said("list", "--state", "ignored").count("\n") == 1
    inbox.record_report("r-1", "success", "# the report", NOW, final=True)
    assert "# the report" in said("show", "github:d-1")


def test_forgeries_and_oddities_are_listed(inbox: Inbox) -> None:
    inbox.add_note(InboxNote("github:", "invalid signature", "no signature; from 10.0.0.1", NOW))
    assert "invalid signature github:  no signature; from 10.0.0.1" in said("notes")


def test_a_delivery_is_redelivered_by_a_person_who_is_written_down(inbox: Inbox) -> None:
    inbox.receive(PUSH, outcome=ProcessingOutcome("ignored", "no rule"))
    assert "turn 1 waits" in said("redeliver", "github:d-1", "--by", "ada")
    (turn,) = inbox.pending_attempts()
    assert (turn.number, turn.requested_by) == (1, "ada")
    assert "waits for the dispatcher already" in said("redeliver", "github:d-1", code=2)
    assert "there is no delivery 'ghost'" in said("redeliver", "ghost", code=2)


def test_a_missed_push_is_found_and_taken_in(inbox: Inbox, tmp_path: Path) -> None:
    remote, rules = Remote.make(tmp_path), tmp_path / "triggers.yaml"
    commit = remote.push({"models/churn/x": "1"})
    rules.write_text(
        f"senders: {{github: {{secrets: [env:HOOK]}}}}\nrepositories: [{{name: acme/models, sender: github, clone: '{remote.url}'}}]\n"
    )
    assert f"main: commit {commit} was never delivered" in said("missed", "--triggers", str(rules), code=1)
    assert "give --by" in said("missed", "--ingest", "--by", " ", "--triggers", str(rules), code=2)
    assert "added to the inbox as github:missed:acme/models:main" in said(
        "missed", "--ingest", "--triggers", str(rules)
    )
    assert said("missed", "--triggers", str(rules)) == "0 missed\n"
    assert [turn.delivery.commit for turn in inbox.pending_attempts()] == [commit]


def test_the_shipped_rules_are_right_and_name_deployments_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RATCHET_GITHUB_SECRET", raising=False)
    counted, missing = said("check").splitlines()
    assert counted == "1 rule for your-team/models"
    assert missing.startswith("github: no secret is set (env:RATCHET_GITHUB_SECRET)")
    declared = (ROOT / "prefect.yaml").read_text()
    for rule in read_triggers(TRIGGERS).rules:
        flow, name = rule.deployment.split("/")
        assert f"entrypoint: flows/{flow}.py:{flow}" in declared
        assert f"name: {name}\n" in declared


def test_rules_with_a_mistake_keep_the_gateway_from_starting(inbox: Inbox, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(RULES.replace("rules:", "rule:"))
    assert "wrong.yaml, line 12, rule: is not a known key. Did you mean `rules`?" in said(
        "serve", "--port", "0", "--triggers", str(tmp_path / "wrong.yaml"), code=2
    )


@pytest.mark.slow
def test_the_process_takes_deliveries_in_while_prefect_is_away_and_ends_when_asked(
    inbox: Inbox, tmp_path: Path
) -> None:
    (tmp_path / "triggers.yaml").write_text(RULES)
    variables = {
        "HOOK": SECRET,
        "PREFECT_API_URL": "http://127.0.0.1:1/api",
        **{name: os.environ[name] for name in os.environ if name.startswith("RATCHET_")},
    }
    command = [
        sys.executable,
        "-m",
        "services.gateway",
        "serve",
        "--port",
        "0",
        "--triggers",
        str(tmp_path / "triggers.yaml"),
    ]
    process = start_process("gateway", command, environment=variables, folder=ROOT, log=tmp_path / "log")
    try:
        line = wait_for(
            lambda: next((x for x in Path(process.log).read_text().splitlines() if x.startswith("gateway on ")), ""), 60
        )
        url = line.removeprefix("gateway on ")
        wait_until_ready(process, f"{url}/ping")
        given = hook("github", "push", push())
        taken = httpx.post(f"{url}/hooks/github", content=given.body, headers=given.raw, timeout=60)
        forged = httpx.post(f"{url}/hooks/github", content=given.body + b" ", headers=given.raw, timeout=60)
        large = httpx.post(f"{url}/hooks/github", content=b"x" * 30_000_000, headers=given.raw, timeout=60)
        assert [taken.status_code, forged.status_code, large.status_code] == [202, 401, 413]
        wait_for(lambda: [note for note in inbox.notes() if note.kind == "waits"], what="the note that it waits")
        psutil.Process(process.pid).send_signal(signal.SIGTERM)
        wait_for(lambda: not process.alive(), what="the end")
    finally:
        process.stop()
    assert [turn.delivery.id for turn in inbox.pending_attempts()] == ["github:d-1"]
    assert SECRET not in Path(process.log).read_text()

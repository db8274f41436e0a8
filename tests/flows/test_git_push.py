"""A push to a git repository retrains a model with exactly the pushed code, and the run is reported to the git host."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from blocks.database.ledger import SqlLedger
from blocks.environment import open_environment
from blocks.inbox.base import DeliveryStatus
from deployments.flow_runs import is_ended, outcome_of_run, wait_for_run
from deployments.register import write_trust_file
from local.processes import start_process, wait_until_ready
from local.stack import Stack
from tests.fakes.git_hosts import Recorded, Remote, git, recording_api
from tests.fixtures.command_line import ratchet
from tests.fixtures.hooks import SECRET, hook, push
from tests.fixtures.support import customers, environment_settings, ingest_frame
from tests.waiting import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]

RULES = """
senders:
  github: {{secrets: [env:HOOK], api: "{api}", token: env:TOKEN, comments: true}}
repositories:
  - {{name: acme/models, sender: github, clone: "{clone}"}}
rules:
  - {{name: on push, paths: ["models/{{model}}/**"], deployment: retrain/retrain,
      parameters: {{model: "{{model}}", tier: development, requested_by: "{{author}}"}}}}
"""


@contextmanager
def gateway(stack: Stack, checkout: Path, state: Path, rules: str) -> Iterator[str]:
    """Run a gateway beside the stack's own, with its own inbox, and yield its address."""
    state.mkdir()
    (state / "triggers.yaml").write_text(rules)
    settings = environment_settings()
    own_ledger = {**settings["ledger"], "url": f"sqlite:///{state}/ledger.db"}
    no_key = {**settings["signing"], "decisions_key": "", "decisions_head_file": ""}  # it would order in its own ledger
    write_trust_file(state / "trust" / "local.toml", {**settings, "ledger": own_ledger, "signing": no_key})
    own = {"RATCHET_STATE": str(state), "RATCHET_TRUST": str(state / "trust"), "HOOK": SECRET, "TOKEN": "api-token"}
    variables = {**stack.environment_variables(), **own}
    command = [
        sys.executable,
        "-m",
        "services.gateway",
        "serve",
        "--port",
        "0",
        "--triggers",
        str(state / "triggers.yaml"),
    ]
    process = start_process("gateway", command, environment=variables, folder=checkout, log=state / "gateway.log")
    try:
        line = wait_for(
            lambda: next(
                (each for each in Path(process.log).read_text().splitlines() if each.startswith("gateway on ")), ""
            ),
            60,
        )
        url = line.removeprefix("gateway on ")
        wait_until_ready(process, f"{url}/ping")
        yield url
    finally:
        process.stop()


@pytest.fixture
def remote(team_checkout: Path, tmp_path: Path) -> Remote:
    """Return a repository that holds the team's checkout."""
    subprocess.run(["git", "clone", "--quiet", "--bare", str(team_checkout), str(tmp_path / "remote.git")], check=True)
    subprocess.run(["git", "clone", "--quiet", str(tmp_path / "remote.git"), str(tmp_path / "work")], check=True)
    return Remote(tmp_path / "remote.git", tmp_path / "work")


def saying(remote: Remote, words: str) -> dict[str, str | None]:
    """Return the main flow with another message at its end, so that a run shows whose code it is."""
    flow = (remote.work / "flows" / "retrain.py").read_text()
    text = "it saw only the"
    assert text in flow
    return {"flows/retrain.py": flow.replace(text, f"{words}: {text}"), "models/pushed/NOTE.md": words}


def test_a_push_retrains_with_the_pushed_code_and_is_answered_on_the_commit(
    stack: Stack, team_checkout: Path, tmp_path: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    ingest_frame("pushed", customers()[:2000], tmp_path)
    branch = git("rev-parse", "--abbrev-ref", "HEAD", folder=remote.work)
    before = git("rev-parse", "HEAD", folder=remote.work)
    commit = remote.push(saying(remote, "Said by the pushed commit"), branch)
    remote.push({"flows/retrain.py": "raise SystemExit('a later commit')"}, branch)
    files = [{"added": ["models/pushed/NOTE.md"], "removed": [], "modified": ["flows/retrain.py"]}]
    body = push(before=before, after=commit, commits=files)
    state = tmp_path / "gateway"
    with (
        recording_api() as api,
        gateway(stack, team_checkout, state, RULES.format(api=api.url, clone=remote.url)) as url,
    ):
        given = hook("github", "push", body)
        answers = [
            httpx.post(f"{url}/hooks/github", content=given.body, headers=given.raw, timeout=60) for _ in range(2)
        ]
        assert [answer.status_code for answer in answers] == [202, 200]
        inbox = SqlLedger(url=f"sqlite:///{state}/ledger.db").inbox()
        entry: DeliveryStatus = wait_for(
            lambda: (found := inbox.delivery_status("github:d-1")).outcome and found, what="the start of a run"
        )
        assert entry.outcome is not None
        (started,) = entry.outcome.runs
        run = wait_for_run(UUID(started.run_id), until=is_ended, seconds=240)
        assert run.state is not None
        assert outcome_of_run(run) == "not_promotable", run.state.message
        assert str(run.state.message).startswith("Not promotable: Said by the pushed commit"), run.state.message
        assert {f"commit:{commit}", "delivery:github:d-1"} <= set(run.tags)
        wait_for(lambda: inbox.report_text(started.run_id), what="the report")

    version = open_environment("local").tracking().version("pushed", "1")
    assert (version.tags["ratchet.commit"], version.tags["ratchet.uncommitted_changes"]) == (commit, "no")
    check_told(api, commit)
    monkeypatch.setenv("RATCHET_STATE", str(state))
    monkeypatch.setenv("RATCHET_TRUST", str(state / "trust"))
    listed = ratchet("gateway", "list")
    assert listed.exit_code == 0 and "STARTED: retrain/retrain by the rule 'on push'" in listed.stdout
    assert os.environ["PREFECT_API_URL"] == stack.environment_variables()["PREFECT_API_URL"]


def check_told(api: Recorded, commit: str) -> None:
    """Check the reports to the git host: first that the run started, then its outcome, with metrics and data."""
    states = [content["state"] for path, _, content in api.calls if path == f"/repos/acme/models/statuses/{commit}"]
    assert (states[0], states[-1]) == ("pending", "success")
    (comment,) = [content["body"] for path, _, content in api.calls if path.endswith(f"{commit}/comments")]
    for words in (commit, "| auc |", "# Checks", "Said by the pushed commit"):
        assert words in comment

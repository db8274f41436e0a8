"""Namespaces: two people retrain one model at the same time, and neither run touches the other."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from blocks.environment import open_environment
from deployments.flow_runs import start_run, wait_for_run
from local.stack import Stack
from tests.fixtures.support import (
    SMALL,
    approvals,
    approve,
    customers,
    deployments_of,
    ingest_frame,
    outcome,
    predict,
    request_of,
)

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.heavy, pytest.mark.timeout(900)]

GIVEN: dict[str, dict[str, Any]] = {"dana": SMALL, "max": {"n_estimators": 60, "seed": 11}}


def trained(stack: Stack, checkout: Path, *arguments: str) -> str:
    """Run the command as a colleague does, in the team's checkout."""
    command = [sys.executable, "-m", "ratchet", "runs", *arguments]
    variables = {**os.environ, "RATCHET_STATE": str(stack.state_folder)}
    done = subprocess.run(command, cwd=checkout, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_two_people_retrain_one_model_at_once_and_share_nothing(
    stack: Stack, team_checkout: Path, tmp_path: Path
) -> None:
    assert outcome(ingest_frame("paired", customers(), tmp_path)) == "Completed"
    begun = {
        who: start_run("retrain/retrain", {"model": f"paired--{who}", "requested_by": f"{who}@example.com", "parameters": given})
        for who, given in GIVEN.items()
    }  # fmt: skip
    waiting = {who: wait_for_run(run_id, seconds=400) for who, run_id in begun.items()}
    assert {who: outcome(run) for who, run in waiting.items()} == dict.fromkeys(GIVEN, "Suspended")
    asked = {who: request_of(run) for who, run in waiting.items()}
    assert {who: (each.model, each.version) for who, each in asked.items()} == {
        who: (f"paired--{who}", "1") for who in GIVEN
    }
    started = [run.start_time for run in waiting.values() if run.start_time]
    assert max(started) < min(each.requested_at for each in asked.values()), "neither waited for the other"

    assert outcome(approve(waiting["dana"], by="second@example.com")) == "deployed"
    features = customers().drop(columns=["customer_id", "churn"])
    assert predict("paired--dana", features.head(3))[0] == "1"
    env = open_environment("local")
    assert env.endpoint().live_version("paired") is None, "the shared one is as it was: there was none"
    assert env.endpoint().live_version("paired--max") is None
    assert deployments_of("paired") == () and env.tracking().runs("paired") == ()
    assert [each.id for each in approvals().open_requests("paired--max")] == [asked["max"].id]
    assert {path.name for path in (env.scratch / "tiers").glob("paired*")} == {"paired--dana", "paired--max"}
    assert len(env.lake().as_of("paired").snapshots) == 1

    check_repeat(stack, team_checkout)


def check_repeat(stack: Stack, checkout: Path) -> None:
    """Let dana list max's runs, repeat one in her namespace with one command, and compare: the models are the same."""
    listed = {run["model"]: run for run in json.loads(trained(stack, checkout, "list", "paired", "--json"))}
    assert {model: (run["requested_by"], run["is_deployed"]) for model, run in listed.items()} == {
        "paired--dana": ("dana@example.com (not authenticated)", True),
        "paired--max": ("max@example.com (not authenticated)", False),
    }  # fmt: skip
    his = str(listed["paired--max"]["id"])
    said = trained(stack, checkout, "repeat", his[:10], "--as", "dana", "--by", "dana@example.com", "--same-code")
    repeated = wait_for_run(UUID(re.findall(r"flow run (\S+)", said)[0]), seconds=400)
    assert outcome(repeated) in {"Suspended", "inconclusive", "held"}, "against her own champion"
    assert f"commit:{listed['paired--max']['commit']}" in repeated.tags, "by the code that made his"
    hers = next(
        run for run in json.loads(trained(stack, checkout, "list", "paired", "--json")) if run["version"] == "2"
    )
    assert (hers["model"], hers["metrics"]) == ("paired--dana", listed["paired--max"]["metrics"])
    found = json.loads(trained(stack, checkout, "compare", his, str(hers["id"]), "--json"))
    assert {(each["part"], each["name"]) for each in found["differences"]} <= {
        ("who", "model"), ("who", "requested by"), ("metrics", "verdict")
    }  # fmt: skip
    assert found["one"]["parameters"]["seed"] == found["other"]["parameters"]["seed"] == "11"
    assert found["one"]["predictions_digest"] == found["other"]["predictions_digest"] != "", "bit by bit the same model"
    shown = trained(stack, checkout, "compare", his, str(hers["id"]))
    assert "same parameters: " in shown and "same metrics: " in shown

"""The approvals page: a person signs in, reads the evidence and approves; the waiting run continues and deploys."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from blocks.environment import open_environment
from deployments.flow_runs import SUSPENDED, is_ended, wait_for_run
from local.stack import Stack
from tests.fixtures.office import WORDS, decide, hidden, sign_in
from tests.fixtures.support import SMALL, approvals, customers, deployments_of, ingest_frame, outcome, request_of, run

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_person_who_signed_in_approves_and_the_version_is_deployed(
    stack: Stack, team_checkout: Path, tmp_path: Path
) -> None:
    ingest_frame("signed", customers()[:2000], tmp_path)
    waiting = run("retrain/retrain", model="signed", parameters=SMALL, requested_by="dana@example.com")
    assert outcome(waiting) == SUSPENDED
    request = request_of(waiting)
    for name in ("max@example.com", "dana@example.com"):
        command = [sys.executable, "-m", "ratchet", "accounts", "add", name, "--role", "approver"]
        subprocess.run(command, input=f"{WORDS}\n", text=True, cwd=team_checkout, check=True, timeout=300)
    with httpx.Client(base_url=stack.url("gateway"), timeout=120) as stranger:
        assert stranger.get(f"/approvals/{request.id}").status_code == 401
        assert sign_in(stranger, "max@example.com", "a wrong password").status_code == 401

    with httpx.Client(base_url=stack.url("gateway"), timeout=120) as requester:
        assert sign_in(requester, "dana@example.com").status_code == 303
        token = hidden(requester.get("/approvals"), "/sign-out")["token"]
        sent = {"token": token, "verdict": "approve", "reason": "I made it", "digest": request.digest}
        refused = requester.post(f"/approvals/{request.id}", data=sent)
        assert (refused.status_code, "the requester may not decide" in refused.text) == (403, True)

    with httpx.Client(base_url=stack.url("gateway"), timeout=120) as person:
        assert sign_in(person, "max@example.com").status_code == 303
        page = person.get(f"/approvals/{request.id}")
        for shown in (
            request.digest,
            "auc",
            "plot.png",
            "Slices",
            "Data since the champion",
            "<summary>Report</summary>",
        ):
            assert shown in page.text
        assert person.get(f"/approvals/{request.id}/plot.png").content.startswith(b"\x89PNG")
        assert decide(person, request.id, reason="the evidence convinces me").status_code == 303

    done = wait_for_run(waiting.id, until=is_ended, seconds=240)
    assert outcome(done) == "deployed"
    made = approvals().final_decision(request.id)
    assert made is not None
    assert (made.by, made.authenticated, made.channel) == (
        "max@example.com", True, "approvals page, signed in by password",
    )  # fmt: skip
    assert [line.status for line in deployments_of("signed")] == ["serving"]
    assert open_environment("local").endpoint().live_version("signed") is not None

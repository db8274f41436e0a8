"""A person signs in on the gateway, reads the evidence and approves; the run that waits goes on and deploys."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from blocks.environment import open_environment
from deployments.runs import WAITING, ended, follow
from local.stack import Stack
from tests.services.gateway.approvals.office import WORDS, decide, hidden, sign_in
from tests.support import SMALL, approvals, customers, land, outcome, released, request_of, run

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_person_who_signed_in_approves_and_the_version_is_deployed(
    stack: Stack, team_checkout: Path, tmp_path: Path
) -> None:
    land("signed", customers()[:2000], tmp_path)
    waiting = run("retrain/retrain", model="signed", parameters=SMALL, requested_by="dana@example.com")
    assert outcome(waiting) == WAITING
    request = request_of(waiting)
    for name in ("max@example.com", "dana@example.com"):
        command = [sys.executable, "-m", "ratchet", "accounts", "add", name, "--role", "approver"]
        subprocess.run(command, input=f"{WORDS}\n", text=True, cwd=team_checkout, check=True, timeout=60)
    with httpx.Client(base_url=stack.url("gateway"), timeout=30) as stranger:
        assert stranger.get(f"/approvals/{request.id}").status_code == 401
        assert sign_in(stranger, "max@example.com", "a wrong password").status_code == 401

    with httpx.Client(base_url=stack.url("gateway"), timeout=30) as requester:
        assert sign_in(requester, "dana@example.com").status_code == 303
        token = hidden(requester.get("/approvals"), "/sign-out")["token"]
        sent = {"token": token, "verdict": "approve", "reason": "I made it", "digest": request.digest}
        refused = requester.post(f"/approvals/{request.id}", data=sent)
        assert (refused.status_code, "who asked may not decide" in refused.text) == (403, True)

    with httpx.Client(base_url=stack.url("gateway"), timeout=30) as person:
        assert sign_in(person, "max@example.com").status_code == 303
        page = person.get(f"/approvals/{request.id}")
        for shown in (request.digest, "auc", "plot.png", "Slices", "Data since the champion", "The report"):
            assert shown in page.text
        assert person.get(f"/approvals/{request.id}/plot.png").content.startswith(b"\x89PNG")
        assert decide(person, request.id, reason="the evidence convinces me").status_code == 303

    done = follow(waiting.id, until=ended, seconds=240)
    assert outcome(done) == "Deployed"
    made = approvals().decision(request.id)
    assert made is not None
    assert (made.by, made.authenticated, made.channel) == (
        "max@example.com", True, "approvals page, signed in by password",
    )  # fmt: skip
    assert [line.status for line in released("signed")] == ["serving"]
    assert open_environment("local").endpoint().serving("signed") is not None

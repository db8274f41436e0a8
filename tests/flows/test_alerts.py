"""Alerts: an event of a model reaches a receiver automatically (flow, ledger, event, automation, flow, channel)."""

import base64
import json
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client

from blocks.notifications.webhook import SignedWebhook
from deployments.automations import build_automations, save_automations
from local.stack import Stack
from tests.fakes.receivers import web_server
from tests.fixtures.command_line import ratchet
from tests.fixtures.support import (
    SMALL,
    approve,
    customers,
    environment_settings,
    ingest_frame,
    outcome,
    run,
    save_settings,
)
from tests.waiting import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()


def test_a_request_that_waits_is_told_with_no_schedule_in_between_and_then_is_over(
    stack: Stack, tmp_path: Path
) -> None:
    before = environment_settings()
    with web_server() as box:
        box.answers.append(503)  # the first attempt fails: the next delivery includes it
        SignedWebhook(url=box.url, secret=SECRET).save("test", overwrite=True)
        channel = {
            "name": "test", "block": "ratchet-signed-webhook/test", "min_severity": "info", "models": ["alerted"],
        }  # fmt: skip
        save_settings({**before, "alerts": {"channels": [channel]}})
        try:
            ingest_frame("alerted", customers()[:2000], tmp_path)
            waiting = run("retrain/retrain", model="alerted", parameters=SMALL, requested_by="dana@example.com")
            assert outcome(waiting) == "Suspended"
            assert wait_for(lambda: not box.answers, what="the first attempt")
            told = ratchet("alerts", "list")
            assert told.exit_code == 0
            shown = told.stdout
            assert "alerted/local/approval.requested/" in shown
            assert "make approve REQUEST=alerted-1-" in shown
            assert "responded with status 503" in shown
            assert outcome(approve(waiting)) == "deployed"

            def arrived() -> list[str]:
                return [json.loads(body)["occasion"] for _, body in box.posts]

            wait_for(lambda: {"news", "recovered"} <= set(arrived()), what="deployed, and waits no longer")
            listed = ratchet("alerts", "list")
            assert listed.exit_code == 0 and "alerted/local/approval.requested/" not in listed.stdout
        finally:
            save_settings(before)


def test_automations_are_saved_once_and_one_that_was_paused_stays_paused(stack: Stack) -> None:
    names = [automation.name for automation in build_automations()]
    with get_client(sync_client=True) as client:
        (first,) = client.read_automations_by_name(names[0])
        client.pause_automation(first.id)
        try:
            save_automations()
            for name in names:
                assert len(client.read_automations_by_name(name)) == 1
            assert not client.read_automations_by_name(names[0])[0].enabled
        finally:
            client.resume_automation(first.id)

"""Notification channels: each delivers a complete message under its id; the error's type says whether to retry."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import boto3
import pytest
from moto import mock_aws
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.notifications import (
    CustomWebhookNotificationBlock,
    MicrosoftTeamsWebhook,
    PagerDutyWebHook,
    SlackWebhook,
    TwilioSMS,
)
from pydantic import ValidationError

from blocks.common.errors import Rejected, Unavailable
from blocks.notifications.base import BLOCK_MODULES, Notification, send_notification
from blocks.notifications.email import SmtpEmail
from blocks.notifications.pagerduty import PagerDutyEvents
from blocks.notifications.sns import SnsNotification
from blocks.notifications.webhook import SignedWebhook, webhook_signature
from tests.fakes.receivers import FakeServices, mail_server, services, web_server

NOTICE = Notification("0f" * 16, "[warning] churn (local): the data drifts", "“tenure” moved.\n.\nowner: ann", "warning",
                "churn/local/model.drift.detected", "new")  # fmt: skip
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
NOWHERE = 9  # the discard port of this machine: nobody listens


def test_every_block_of_ours_is_found_by_its_slug() -> None:
    found = {getattr(import_module(module), kind.__name__).get_block_type_slug(): module
             for kind in (SmtpEmail, SignedWebhook, SnsNotification, PagerDutyEvents) for module in (kind.__module__,)}  # fmt: skip
    assert found == BLOCK_MODULES


def smtp(port: int, **changes: Any) -> SmtpEmail:
    given = {"host": "127.0.0.1", "port": port, "security": "none", "sender": "ratchet@example.com",
             "recipients": ("ann@example.com", "max@example.com"), "timeout": 120.0}  # fmt: skip
    return SmtpEmail(**{**given, **changes})


def test_an_e_mail_arrives_whole_at_everyone_and_bears_the_id() -> None:
    with mail_server() as box:
        send_notification(smtp(box.port), NOTICE)
        (mail,) = box.mails
        assert mail["Subject"] == NOTICE.subject
        assert mail["Message-ID"] == f"<{NOTICE.id}@ratchet>"
        assert mail.get_content().strip().splitlines() == NOTICE.body.splitlines()
        assert box.recipients == ["ann@example.com", "max@example.com"]


ANSWERS = {"busy": ("451 later", Unavailable), "full": ("452 no room", Unavailable), "refused": ("554 never", Rejected)}


@pytest.mark.parametrize(("answer", "error"), ANSWERS.values(), ids=ANSWERS)
def test_the_mail_servers_answer_decides_whether_it_is_tried_again(answer: str, error: type[Exception]) -> None:
    with mail_server() as box:
        box.answers.append(answer)
        with pytest.raises(error, match=answer[:3]):
            send_notification(smtp(box.port), NOTICE)
        send_notification(smtp(box.port), NOTICE)
        assert len(box.mails) == 1


def test_a_mail_server_that_is_down_may_be_tried_again() -> None:
    with pytest.raises(Unavailable, match="127.0.0.1:9"):
        send_notification(smtp(NOWHERE), NOTICE)


def test_a_password_is_not_in_an_error() -> None:
    with pytest.raises(Unavailable) as failed:
        send_notification(smtp(NOWHERE, user="ann", password="correct-horse"), NOTICE)  # noqa: S106
    assert "correct-horse" not in repr(failed.value)


def test_a_signed_webhook_can_be_checked_by_its_receiver() -> None:
    with web_server() as box:
        send_notification(SignedWebhook(url=box.url, secret=SECRET), NOTICE)
        ((headers, body),) = box.posts
        assert json.loads(body)["subject"] == NOTICE.subject
        assert headers["webhook-id"] == NOTICE.id
        again = webhook_signature(SECRET, headers["webhook-id"], headers["webhook-timestamp"], body.decode())
        assert headers["webhook-signature"] == again


def test_the_signature_is_that_of_the_standard() -> None:
    # the example of the Standard Webhooks specification's reference libraries
    secret, identity, moment = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330"
    assert (
        webhook_signature(secret, identity, moment, '{"test": 2432232314}')
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "no prefix at all", SECRET.removeprefix("whsec_")])
def test_a_weak_signing_secret_is_refused(secret: str) -> None:
    with pytest.raises(Rejected, match="24"):
        webhook_signature(secret, "id", "1", "{}")


@pytest.mark.parametrize(
    ("status", "error"), [(500, Unavailable), (503, Unavailable), (429, Unavailable), (410, Rejected), (302, Rejected)]
)
def test_the_webhooks_answer_decides_whether_it_is_tried_again(status: int, error: type[Exception]) -> None:
    with web_server() as box:
        box.answers.append(status)
        with pytest.raises(error, match=str(status)):
            send_notification(SignedWebhook(url=box.url, secret=SECRET), NOTICE)


def test_an_address_that_is_a_secret_is_not_in_an_error() -> None:
    with pytest.raises(Unavailable) as failed:
        send_notification(SignedWebhook(url=f"http://127.0.0.1:{NOWHERE}/T0P-SECRET", secret=SECRET), NOTICE)
    assert "T0P" not in str(failed.value)


def test_prefects_own_blocks_are_channels_and_get_the_id_in_the_text() -> None:
    with web_server() as box:
        json_url = box.url.replace("http://", "json://")
        custom = {"text": "{{subject}} {{body}}"}
        for block in (
            SlackWebhook(url=json_url),
            CustomWebhookNotificationBlock(name="ours", url=box.url, json_data=custom),
        ):
            send_notification(block, NOTICE)
        assert len(box.posts) == 2
        assert all(NOTICE.id.encode() in body for _, body in box.posts)


def test_prefects_own_blocks_that_fail_are_tried_again_and_do_not_tell_their_address() -> None:
    with web_server() as box:
        box.answers += [500, 500]
        for block in (SlackWebhook(url=box.url.replace("http://", "json://")),
                      CustomWebhookNotificationBlock(name="ours", url=box.url + "/T0P", json_data={})):  # fmt: skip
            with pytest.raises(Unavailable) as failed:
                send_notification(block, NOTICE)
            assert box.url not in str(failed.value)


@mock_aws
def test_a_topic_and_a_phone_are_told_by_sns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    sns, sqs = boto3.client("sns", region_name="eu-west-1"), boto3.client("sqs", region_name="eu-west-1")
    topic = sns.create_topic(Name="alerts")["TopicArn"]
    queue = sqs.create_queue(QueueName="reader")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    send_notification(SnsNotification(topic_arn=topic, region="eu-west-1"), NOTICE)
    send_notification(SnsNotification(phone_number="+4915112345678", region="eu-west-1"), NOTICE)
    arrived = json.loads(sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"])
    assert (arrived["Subject"], arrived["Message"]) == (NOTICE.subject, NOTICE.body)
    assert arrived["MessageAttributes"]["ratchet-id"]["Value"] == NOTICE.id
    with pytest.raises(Rejected, match="NotFound"):
        send_notification(SnsNotification(topic_arn=topic + "-gone", region="eu-west-1"), NOTICE)


def test_sns_needs_one_target() -> None:
    for given in ({}, {"topic_arn": "arn:aws:sns:x", "phone_number": "+49"}):
        with pytest.raises(ValidationError, match="either"):
            SnsNotification(**given)


def test_a_notice_block_is_a_notification_block_for_prefects_automations() -> None:
    import asyncio

    with web_server() as box:
        asyncio.run(SignedWebhook(url=box.url, secret=SECRET).notify("hello", "there"))
        assert json.loads(box.posts[0][1])["body"] == "hello"


@pytest.fixture
def internet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServices]:
    """Every HTTPS service under its own name: requests use real TLS and HTTP, and never leave this machine."""
    with services(tmp_path) as box:
        for name, value in box.variables.items():
            monkeypatch.setenv(name, value)
        yield box


TEAMS = (
    "https://prod-01.westeurope.logic.azure.com:443/workflows/643e69f83c8944438d68119179a10a64/triggers/manual/paths"
    "/invoke?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=S1GNATURE"
)
OWN = {
    "Slack": lambda: SlackWebhook(url="https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"),
    "Teams": lambda: MicrosoftTeamsWebhook(url=TEAMS),
    "PagerDuty": lambda: PagerDutyWebHook(integration_key="k" * 32, api_key="a" * 20),
    "Twilio": lambda: TwilioSMS(account_sid="AC" + "0" * 32, auth_token="t" * 32, from_phone_number="15005550006",
                                to_phone_numbers=["15005550009", "15005550010"]),
}  # fmt: skip


def test_teams_gets_a_card_with_subject_text_and_id(internet: FakeServices) -> None:
    send_notification(OWN["Teams"](), NOTICE)
    (post,) = internet.posts
    assert post.host == "prod-01.westeurope.logic.azure.com"
    assert post.path == TEAMS.partition(":443")[2]
    (card,) = json.loads(post.body)["attachments"]
    assert card["contentType"] == "application/vnd.microsoft.card.adaptive"
    texts = {block.get("id"): block.get("text") for block in card["content"]["body"]}
    assert texts["title"] == NOTICE.subject
    assert texts["body"] == f"{NOTICE.body}\n\nid {NOTICE.id}"


def test_slack_gets_subject_text_and_id(internet: FakeServices) -> None:
    send_notification(OWN["Slack"](), NOTICE)
    (post,) = internet.posts
    assert (post.host, post.path) == ("hooks.slack.com", "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ")
    (shown,) = json.loads(post.body)["attachments"]
    assert (shown["title"], shown["text"]) == (NOTICE.subject, f"{NOTICE.body}\n\nid {NOTICE.id}")


def test_an_sms_by_twilio_reaches_every_number(internet: FakeServices) -> None:
    send_notification(OWN["Twilio"](), NOTICE)
    assert {post.host for post in internet.posts} == {"api.twilio.com"}
    assert {post.path for post in internet.posts} == {f"/2010-04-01/Accounts/AC{'0' * 32}/Messages.json"}
    said = [parse_qs(post.body.decode()) for post in internet.posts]
    assert [each["To"] for each in said] == [["+15005550009"], ["+15005550010"]]
    assert all(each["From"] == ["+15005550006"] for each in said)
    assert all(NOTICE.subject in each["Body"][0] and each["Body"][0].endswith(NOTICE.id) for each in said)
    user = base64.b64decode(internet.posts[0].headers["authorization"].removeprefix("Basic ")).decode()
    assert user == f"AC{'0' * 32}:{'t' * 32}"


def test_an_sms_is_never_longer_than_twilio_takes_and_keeps_its_id(internet: FakeServices) -> None:
    send_notification(OWN["Twilio"](), replace(NOTICE, body="word " * 1000))
    said = parse_qs(internet.posts[0].body.decode())["Body"][0]
    assert 1500 < len(said) <= 1600
    assert said.endswith(f"…\n\nid {NOTICE.id}")


def test_prefects_own_pagerduty_block_opens_an_incident(internet: FakeServices) -> None:
    send_notification(OWN["PagerDuty"](), NOTICE)
    (post,) = internet.posts
    assert (post.host, post.path) == ("events.pagerduty.com", "/v2/enqueue")
    event = json.loads(post.body)
    assert (event["routing_key"], event["event_action"]) == ("k" * 32, "trigger")
    assert event["payload"]["summary"].strip() == NOTICE.subject
    assert event["payload"]["custom_details"]["Prefect Notification Body"].endswith(f"id {NOTICE.id}")
    assert "dedup_key" not in event, "it can then close what it opened, and docs/alerts.md says that it cannot"


@pytest.mark.parametrize("name", OWN)
def test_a_service_that_is_busy_is_tried_again_and_no_secret_is_told(internet: FakeServices, name: str) -> None:
    internet.answers += [503, 503]
    with pytest.raises(Unavailable) as failed:
        send_notification(OWN[name](), NOTICE)
    assert not any(secret in str(failed.value) for secret in ("TIiaj", "S1GNATURE", "k" * 32, "t" * 32))


def test_a_service_under_a_name_that_nobody_certified_is_not_told(
    internet: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    for block in (make() for make in OWN.values()):
        with pytest.raises(Unavailable):
            send_notification(block, NOTICE)
    assert internet.posts == []


def pager(url: str, **changes: Any) -> NotificationBlock:
    return PagerDutyEvents(**{"routing_key": "R" * 32, "url": url, **changes})


STORY = (("new", "trigger"), ("worse", "trigger"), ("reminder", "trigger"), ("recovered", "resolve"))


def test_what_lasts_is_one_incident_that_is_resolved_when_it_is_over() -> None:
    with web_server() as box:
        for occasion, _ in STORY:
            send_notification(
                pager(box.url), replace(NOTICE, id=f"id of {occasion}", occasion=occasion, severity="critical")
            )
        events = [json.loads(body) for _, body in box.posts]
    assert [event["event_action"] for event in events] == [action for _, action in STORY]
    assert {event["dedup_key"] for event in events} == {NOTICE.cause}
    assert {event["routing_key"] for event in events} == {"R" * 32}
    first = events[0]["payload"]
    assert (first["summary"], first["severity"], first["source"]) == (NOTICE.subject, "critical", "ratchet")
    assert first["custom_details"] == {"text": NOTICE.body, "occasion": "new", "ratchet-id": "id of new"}
    assert "payload" not in events[-1]


def test_news_is_an_incident_of_its_own_and_a_repeat_of_it_none() -> None:
    with web_server() as box:
        for number in ("1", "1", "2"):
            send_notification(pager(box.url), replace(NOTICE, id=number, occasion="news"))
        assert [json.loads(body)["dedup_key"] for _, body in box.posts] == ["1", "1", "2"]


def test_what_pagerduty_does_not_take_is_shortened() -> None:
    long = replace(NOTICE, cause="churn/" * 100, subject="word " * 500)
    with web_server() as box:
        send_notification(pager(box.url), long)
        event = json.loads(box.posts[0][1])
    assert len(event["dedup_key"]) <= 255
    assert len(event["payload"]["summary"]) == 1024


def test_pagerduty_is_reached_under_its_own_name_by_default(internet: FakeServices) -> None:
    send_notification(PagerDutyEvents(routing_key="R" * 32), NOTICE)
    assert [(post.host, post.path) for post in internet.posts] == [("events.pagerduty.com", "/v2/enqueue")]


PAGED = [(429, Unavailable), (500, Unavailable), (400, Rejected), (403, Rejected)]


@pytest.mark.parametrize(("status", "error"), PAGED)
def test_pagerdutys_answer_decides_whether_it_is_tried_again(status: int, error: type[Exception]) -> None:
    with web_server() as box:
        box.answers.append(status)
        with pytest.raises(error, match=str(status)) as failed:
            send_notification(pager(box.url), NOTICE)
    assert "RRR" not in str(failed.value)

"""Each channel hands over a whole notice under its id, and says by the error's type whether to try again."""

import base64
import json
from importlib import import_module
from typing import Any

import boto3
import pytest
from moto import mock_aws
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from pydantic import ValidationError

from blocks.errors import Rejected, Unavailable
from blocks.notifications.base import MODULES, Notice, send
from blocks.notifications.email import SmtpEmail
from blocks.notifications.sns import SnsNotification
from blocks.notifications.webhook import SignedWebhook, sign
from tests.receivers import mail_server, web_server

NOTICE = Notice("0f" * 16, "[warning] churn (local): the data drifts", "“tenure” moved.\n.\nowner: ann", "warning",
                "churn/local/model.drift.detected", "new")  # fmt: skip
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
NOWHERE = 9  # the discard port of this machine: nobody listens


def test_every_block_of_ours_is_found_by_its_slug() -> None:
    found = {getattr(import_module(module), kind.__name__).get_block_type_slug(): module
             for kind in (SmtpEmail, SignedWebhook, SnsNotification) for module in (kind.__module__,)}  # fmt: skip
    assert found == MODULES


def smtp(port: int, **changes: Any) -> SmtpEmail:
    given = {"host": "127.0.0.1", "port": port, "security": "none", "sender": "ratchet@example.com",
             "recipients": ("ann@example.com", "max@example.com"), "timeout": 5.0}  # fmt: skip
    return SmtpEmail(**{**given, **changes})


def test_an_e_mail_arrives_whole_at_everyone_and_bears_the_id() -> None:
    with mail_server() as box:
        send(smtp(box.port), NOTICE)
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
            send(smtp(box.port), NOTICE)
        send(smtp(box.port), NOTICE)
        assert len(box.mails) == 1


def test_a_mail_server_that_is_down_may_be_tried_again() -> None:
    with pytest.raises(Unavailable, match="127.0.0.1:9"):
        send(smtp(NOWHERE), NOTICE)


def test_a_password_is_not_in_an_error() -> None:
    with pytest.raises(Unavailable) as failed:
        send(smtp(NOWHERE, user="ann", password="correct-horse"), NOTICE)  # noqa: S106
    assert "correct-horse" not in repr(failed.value)


def test_a_signed_webhook_can_be_checked_by_its_receiver() -> None:
    with web_server() as box:
        send(SignedWebhook(url=box.url, secret=SECRET), NOTICE)
        ((headers, body),) = box.posts
        assert json.loads(body)["subject"] == NOTICE.subject
        assert headers["webhook-id"] == NOTICE.id
        again = sign(SECRET, headers["webhook-id"], headers["webhook-timestamp"], body.decode())
        assert headers["webhook-signature"] == again


def test_the_signature_is_that_of_the_standard() -> None:
    # the example of the Standard Webhooks specification's reference libraries
    secret, identity, moment = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330"
    assert sign(secret, identity, moment, '{"test": 2432232314}') == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "no prefix at all", SECRET.removeprefix("whsec_")])
def test_a_weak_signing_secret_is_refused(secret: str) -> None:
    with pytest.raises(Rejected, match="24"):
        sign(secret, "id", "1", "{}")


@pytest.mark.parametrize(
    ("status", "error"), [(500, Unavailable), (503, Unavailable), (429, Unavailable), (410, Rejected), (302, Rejected)]
)
def test_the_webhooks_answer_decides_whether_it_is_tried_again(status: int, error: type[Exception]) -> None:
    with web_server() as box:
        box.answers.append(status)
        with pytest.raises(error, match=str(status)):
            send(SignedWebhook(url=box.url, secret=SECRET), NOTICE)


def test_an_address_that_is_a_secret_is_not_in_an_error() -> None:
    with pytest.raises(Unavailable) as failed:
        send(SignedWebhook(url=f"http://127.0.0.1:{NOWHERE}/T0P-SECRET", secret=SECRET), NOTICE)
    assert "T0P" not in str(failed.value)


def test_prefects_own_blocks_are_channels_and_get_the_id_in_the_text() -> None:
    with web_server() as box:
        json_url = box.url.replace("http://", "json://")
        custom = {"text": "{{subject}} {{body}}"}
        for block in (
            SlackWebhook(url=json_url),
            CustomWebhookNotificationBlock(name="ours", url=box.url, json_data=custom),
        ):
            send(block, NOTICE)
        assert len(box.posts) == 2
        assert all(NOTICE.id.encode() in body for _, body in box.posts)


def test_prefects_own_blocks_that_fail_are_tried_again_and_do_not_tell_their_address() -> None:
    with web_server() as box:
        box.answers += [500, 500]
        for block in (SlackWebhook(url=box.url.replace("http://", "json://")),
                      CustomWebhookNotificationBlock(name="ours", url=box.url + "/T0P", json_data={})):  # fmt: skip
            with pytest.raises(Unavailable) as failed:
                send(block, NOTICE)
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
    send(SnsNotification(topic_arn=topic, region="eu-west-1"), NOTICE)
    send(SnsNotification(phone_number="+4915112345678", region="eu-west-1"), NOTICE)
    arrived = json.loads(sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"])
    assert (arrived["Subject"], arrived["Message"]) == (NOTICE.subject, NOTICE.body)
    assert arrived["MessageAttributes"]["ratchet-id"]["Value"] == NOTICE.id
    with pytest.raises(Rejected, match="NotFound"):
        send(SnsNotification(topic_arn=topic + "-gone", region="eu-west-1"), NOTICE)


def test_sns_needs_one_target() -> None:
    for given in ({}, {"topic_arn": "arn:aws:sns:x", "phone_number": "+49"}):
        with pytest.raises(ValidationError, match="either"):
            SnsNotification(**given)


def test_a_notice_block_is_a_notification_block_for_prefects_automations() -> None:
    import asyncio

    with web_server() as box:
        asyncio.run(SignedWebhook(url=box.url, secret=SECRET).notify("hello", "there"))
        assert json.loads(box.posts[0][1])["body"] == "hello"

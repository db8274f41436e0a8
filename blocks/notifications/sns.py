"""Amazon SNS: a topic (e-mail, queues, functions) or a phone number (SMS)."""

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import Field, model_validator

from blocks.common.aws.clients import aws_client
from blocks.common.errors import Rejected, Unavailable
from blocks.notifications.base import Notification, RatchetNotificationBlock
from runtime.foreign_text import header_text, one_line, visible

TRANSIENT_CODES = {"Throttling", "ThrottlingException", "ThrottledException", "InternalError", "InternalErrorException",
           "ServiceUnavailable", "RequestTimeout"}  # fmt: skip


class SnsNotification(RatchetNotificationBlock):
    """Publishes to an SNS topic or sends an SMS; credentials come from AWS's own chain (role, profile, variables)."""

    _block_type_name = "Ratchet notification (Amazon SNS)"
    _block_type_slug = "ratchet-sns"

    topic_arn: str = Field("", description="The topic's ARN. Either this or a phone number.")
    phone_number: str = Field("", description="A phone number in E.164 (+4915112345678), for an SMS.")
    region: str = Field("", description="The AWS region. Empty: that of the AWS configuration.")
    endpoint_url: str = Field("", description="Endpoint URL for tests; empty: AWS.")

    @model_validator(mode="after")
    def _one_target(self) -> "SnsNotification":
        if bool(self.topic_arn) == bool(self.phone_number):
            raise ValueError("give either topic_arn or phone_number")
        return self

    def deliver(self, notice: Notification) -> None:
        """Publish the notification; its id is the message attribute `ratchet-id`, and the end of an SMS."""
        attributes = {
            "ratchet-id": _string_attribute(notice.id or "-"),
            "ratchet-severity": _string_attribute(notice.severity),
        }
        if self.topic_arn:
            to: dict[str, Any] = {"TopicArn": self.topic_arn, "Subject": _subject(notice.subject)}
            message = visible(notice.body, keep="\n")
        else:
            to, message = {"PhoneNumber": self.phone_number}, f"{one_line(notice.subject)} (id {notice.id[:8]})"
        try:
            client = aws_client("sns", self.region, self.endpoint_url)
            client.publish(Message=message, MessageAttributes=attributes, **to)
        except ClientError as cause:
            code = cause.response.get("Error", {}).get("Code", "")
            raise (Unavailable if code in TRANSIENT_CODES else Rejected)(f"SNS answered {code}") from cause
        except BotoCoreError as cause:
            raise Unavailable(f"SNS cannot be reached: {type(cause).__name__}") from cause


def _string_attribute(value: str) -> dict[str, str]:
    return {"DataType": "String", "StringValue": value}


def _subject(subject: str) -> str:
    """Return the subject in the form that SNS accepts: ASCII, one line, fewer than 100 characters."""
    return header_text(subject)[:99].strip() or "Ratchet"

"""A webhook by Standard Webhooks 1.0: JSON, with the id and a time signed by HMAC-SHA256."""

import base64
import hashlib
import hmac
import json
from dataclasses import asdict
from datetime import UTC, datetime

from pydantic import Field, SecretStr

from blocks.common.errors import Rejected
from blocks.notifications.base import Notification, RatchetNotificationBlock, post


class SignedWebhook(RatchetNotificationBlock):
    """Posts JSON to a URL; the receiver can verify the sender, and detects a repeat by its `webhook-id`."""

    _block_type_name = "Ratchet webhook (signed)"
    _block_type_slug = "ratchet-signed-webhook"

    url: SecretStr = Field(description="URL of the receiver, https://…; stored as a secret, since it may contain one.")
    secret: SecretStr = Field(description='The signing secret: "whsec_" and 24 to 64 bytes in base64.')
    timeout: float = Field(15.0, gt=0, description="Seconds to wait for a response.")

    def deliver(self, notice: Notification) -> None:
        """Post the notification as signed JSON."""
        body, moment = json.dumps(asdict(notice)), str(int(datetime.now(UTC).timestamp()))
        signature = webhook_signature(self.secret.get_secret_value(), notice.id, moment, body)
        headers = {"content-type": "application/json", "webhook-id": notice.id,
                   "webhook-timestamp": moment, "webhook-signature": signature}  # fmt: skip
        post("the webhook", self.url.get_secret_value(), self.timeout, content=body, headers=headers)


def webhook_signature(secret: str, message_id: str, timestamp: str, body: str) -> str:
    """Return the signature of https://www.standardwebhooks.com: "v1," and the HMAC of id.timestamp.body in base64.

    Raises:
        Rejected: the secret is not "whsec_" and base64 of 24 bytes or more.
    """
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError as cause:
        raise Rejected('the webhook\'s secret is not base64; write "whsec_" and 24 to 64 bytes in base64') from cause
    if not secret.startswith("whsec_") or len(key) < 24:
        raise Rejected('the webhook\'s secret is too short; write "whsec_" and 24 to 64 bytes in base64')
    mac = hmac.new(key, f"{message_id}.{timestamp}.{body}".encode(), hashlib.sha256)
    return f"v1,{base64.b64encode(mac.digest()).decode()}"

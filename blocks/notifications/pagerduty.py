"""PagerDuty by its Events API v2: one incident per cause, with its severity, resolved when the cause is over."""

from typing import Any

import httpx
from pydantic import Field, SecretStr

from blocks.common.errors import Rejected, Unavailable
from blocks.notifications.base import Notification, RatchetNotificationBlock
from runtime.digests import text_digest


class PagerDutyEvents(RatchetNotificationBlock):
    """Triggers and resolves incidents; Prefect's own PagerDuty block opens one for each message, and closes none."""

    _block_type_name = "Ratchet PagerDuty (Events v2)"
    _block_type_slug = "ratchet-pagerduty"

    routing_key: SecretStr = Field(description="The integration key of a service's Events API v2 integration.")
    url: str = Field(
        "https://events.pagerduty.com/v2/enqueue",
        description="Where events go; in the EU https://events.eu.pagerduty.com/v2/enqueue.",
    )
    source: str = Field("ratchet", min_length=1, description="What incidents say they come from.")
    timeout: float = Field(15.0, gt=0, description="Seconds to wait for an answer.")

    def deliver(self, notice: Notification) -> None:
        """Send the event. Raises Unavailable on 408, 429 and 5xx, and Rejected on any other response than 2xx."""
        try:
            answer = httpx.post(self.url, json=self._event(notice), timeout=self.timeout)
        except httpx.HTTPError as cause:
            raise Unavailable(f"PagerDuty does not answer: {type(cause).__name__}") from cause
        if answer.is_success:
            return
        passes = answer.status_code in (408, 429) or answer.is_server_error
        raise (Unavailable if passes else Rejected)(f"PagerDuty answered {answer.status_code}")

    def _event(self, notice: Notification) -> dict[str, Any]:
        """Return the event. An open alert is one incident, identified by its cause, however often it is repeated."""
        about = notice.id if notice.occasion == "news" else notice.cause
        key = {"dedup_key": about if len(about) <= 255 else text_digest(about)} if about else {}
        event = {"routing_key": self.routing_key.get_secret_value(), "client": "Ratchet", **key}
        if notice.occasion == "recovered":
            return {**event, "event_action": "resolve"}
        details = {"text": notice.body, "occasion": notice.occasion, "ratchet-id": notice.id}
        summary = (notice.subject or notice.body)[:1024]
        payload = {"summary": summary, "source": self.source, "severity": notice.severity, "custom_details": details}
        return {**event, "event_action": "trigger", "payload": payload}

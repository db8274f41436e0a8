"""PagerDuty by its Events API v2: one incident per cause, with its severity, resolved when the cause is over."""

from typing import Any

from pydantic import Field, SecretStr

from blocks.notifications.base import Notification, RatchetNotificationBlock, post
from runtime.digests import text_digest
from runtime.foreign_text import one_line, visible


class PagerDutyEvents(RatchetNotificationBlock):
    """Triggers and resolves incidents; Prefect's own PagerDuty block opens one for each message, and closes none."""

    _block_type_name = "Ratchet PagerDuty (Events v2)"
    _block_type_slug = "ratchet-pagerduty"

    routing_key: SecretStr = Field(description="The integration key of a service's Events API v2 integration.")
    url: str = Field(
        "https://events.pagerduty.com/v2/enqueue",
        description="URL that receives events; in the EU https://events.eu.pagerduty.com/v2/enqueue.",
    )
    source: str = Field("ratchet", min_length=1, description="Source that incidents name.")
    timeout: float = Field(15.0, gt=0, description="Seconds to wait for a response.")

    def deliver(self, notice: Notification) -> None:
        """Send the event."""
        post("PagerDuty", self.url, self.timeout, json=self._event(notice))

    def _event(self, notice: Notification) -> dict[str, Any]:
        """Return the event. An open alert is one incident, identified by its cause, however often it is repeated."""
        about = notice.id if notice.occasion == "news" else notice.cause
        key = {"dedup_key": about if len(about) <= 255 else text_digest(about)} if about else {}
        event = {"routing_key": self.routing_key.get_secret_value(), "client": "Ratchet", **key}
        if notice.occasion == "recovered":
            return {**event, "event_action": "resolve"}
        details = {"text": visible(notice.body, keep="\n"), "occasion": notice.occasion, "ratchet-id": notice.id}
        summary = one_line(notice.subject or notice.body, 1024)
        payload = {"summary": summary, "source": self.source, "severity": notice.severity, "custom_details": details}
        return {**event, "event_action": "trigger", "payload": payload}

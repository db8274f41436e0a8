"""Sends notifications through any Prefect notification block, or one of ours that also transmits the message id."""

import html
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import httpx
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block

from blocks.common.errors import NotFound, Rejected, Unavailable
from runtime.foreign_text import chat_text, one_line, slack_text, visible

BLOCK_MODULES = {
    "ratchet-smtp-email": "blocks.notifications.email",
    "ratchet-signed-webhook": "blocks.notifications.webhook",
    "ratchet-sns": "blocks.notifications.sns",
    "ratchet-pagerduty": "blocks.notifications.pagerduty",
}
"""Module of our blocks by slug, since Prefect loads only imported blocks. All others are Prefect's own."""
CHAT_FORMATS: Mapping[str, Callable[[str], str]] = {
    "slack-webhook": slack_text,
    "ms-teams-webhook": chat_text,
    "mattermost-webhook": chat_text,
    "discord-webhook": chat_text,
    "sendgrid-email": html.escape,
}
"""How a text is written for a channel that reads markup, by slug. The others show plain text."""
MAX_MESSAGE_LENGTH = {"twilio-sms": 1600}
"""Maximum characters of a message by slug, including subject and id; the service rejects longer messages."""


@dataclass(frozen=True)
class Notification:
    """A notification. Its id is the same for each attempt, so that a receiver can detect repeats."""

    id: str
    subject: str
    body: str
    severity: str
    cause: str
    occasion: str


class RatchetNotificationBlock(NotificationBlock):
    """A notification block that accepts a complete notification."""

    @abstractmethod
    def deliver(self, notice: Notification) -> None:
        """Send the notification; return after the receiver has accepted it.

        Raises:
            Unavailable: the receiver does not respond, or is busy.
            Rejected: the receiver rejects the notification or the sender.
        """

    async def notify(self, body: str, subject: str | None = None) -> None:
        """Send a text without an id, as Prefect's automations do."""
        self.deliver(Notification("", subject or "", body, "info", "", "news"))


def load_channel(reference: str) -> NotificationBlock:
    """Return the notification block "type-slug/name", such as "slack-webhook/team".

    Raises:
        NotFound: there is no such block.
        Rejected: it is not a notification block.
    """
    import_module(BLOCK_MODULES.get(reference.partition("/")[0], "prefect.blocks.notifications"))
    try:
        block = Block.load(reference)
    except (ValueError, RuntimeError) as cause:
        raise NotFound(f"there is no notification block {reference!r}; save it on the Prefect UI: {cause}") from cause
    if not isinstance(block, NotificationBlock):
        raise Rejected(f"{reference!r} is not a notification block; name one, such as slack-webhook/team")
    return block


def send_notification(channel: NotificationBlock, notice: Notification) -> None:
    """Send the notification over any channel; a channel without ids gets the id as the last line of the text.

    Raises:
        Unavailable, Rejected: it was not accepted; the message never contains an address, which may be secret.
    """
    if isinstance(channel, RatchetNotificationBlock):
        channel.deliver(notice)
        return
    end = f"\n\nid {notice.id}"
    slug = type(channel).get_block_type_slug()
    room, written = MAX_MESSAGE_LENGTH.get(slug, 0), CHAT_FORMATS.get(slug, _plain)
    text = written(_truncate(notice.body, room - len(notice.subject) - 2 - len(end) if room else 0) + end)
    try:
        with channel.raise_on_failure():
            cast(
                object, channel.notify(text, one_line(notice.subject))
            )  # outside an event loop this call sends at once
    except Exception as cause:
        raise Unavailable(f"{type(channel).__name__} did not take it: {type(cause).__name__}") from cause


def post(receiver: str, url: str, timeout_seconds: float, **content: Any) -> None:
    """Send a POST request; `content` are arguments of `httpx.post`.

    Raises:
        Unavailable: no response, or status 408, 425, 429 or 5xx.
        Rejected: any other status than 2xx. The messages name the receiver and never its URL, which may be secret.
    """
    try:
        response = httpx.post(url, timeout=timeout_seconds, **content)
    except httpx.HTTPError as cause:
        raise Unavailable(f"{receiver} does not respond: {type(cause).__name__}") from cause
    if not response.is_success:
        is_transient = response.status_code in (408, 425, 429) or response.is_server_error
        raise (Unavailable if is_transient else Rejected)(f"{receiver} responded with status {response.status_code}")


def _plain(text: str) -> str:
    return visible(text, keep="\n")


def _truncate(text: str, room: int) -> str:
    """Return the text, cut to `room` characters unless `room` is 0."""
    return text if not room or len(text) <= room else f"{text[: max(0, room - 1)]}…"

"""How a notice reaches a channel: a Prefect notification block of any kind, or one of ours that carries the id, too."""

from abc import abstractmethod
from dataclasses import dataclass
from importlib import import_module
from typing import cast

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block

from blocks.common.errors import NotFound, Rejected, Unavailable

BLOCK_MODULES = {
    "ratchet-smtp-email": "blocks.notifications.email",
    "ratchet-signed-webhook": "blocks.notifications.webhook",
    "ratchet-sns": "blocks.notifications.sns",
    "ratchet-pagerduty": "blocks.notifications.pagerduty",
}
"""Where a block of a slug is defined: Prefect loads only what was imported. All others are Prefect's own."""
MAX_MESSAGE_LENGTH = {"twilio-sms": 1600}
"""How many characters a service takes of one message, subject and id included; of a longer one it takes none."""


@dataclass(frozen=True)
class Notification:
    """What is sent: the id is the same for each attempt, so that a receiver knows a repeat."""

    id: str
    subject: str
    body: str
    severity: str
    cause: str
    occasion: str


class RatchetNotificationBlock(NotificationBlock):
    """A notification block that takes a whole notice."""

    @abstractmethod
    def deliver(self, notice: Notification) -> None:
        """Hand the notice over; return when the receiver has taken it.

        Raises:
            Unavailable: the receiver does not answer, or says that it is busy.
            Rejected: it refuses the notice, or whoever sends it.
        """

    async def notify(self, body: str, subject: str | None = None) -> None:
        """Send a text, as Prefect's automations do; it has no id."""
        self.deliver(Notification("", subject or "", body, "info", "", "news"))


def load_channel(reference: str) -> NotificationBlock:
    """Return the notification block that "type-slug/name" names, such as "slack-webhook/team".

    Raises:
        NotFound: there is none.
        Rejected: it is a block of another sort.
    """
    import_module(BLOCK_MODULES.get(reference.partition("/")[0], "prefect.blocks.notifications"))
    try:
        block = Block.load(reference)
    except (ValueError, RuntimeError) as cause:
        raise NotFound(f"there is no notification block {reference!r}; save it on the Prefect UI: {cause}") from cause
    if not isinstance(block, NotificationBlock):
        raise Rejected(f"{reference!r} is no notification block; name one, such as slack-webhook/team")
    return block


def send_notification(channel: NotificationBlock, notice: Notification) -> None:
    """Send the notice over any channel; one that knows no ids gets it as the text's last line.

    Raises:
        Unavailable, Rejected: it was not taken; the message never holds an address, which may be a secret.
    """
    if isinstance(channel, RatchetNotificationBlock):
        channel.deliver(notice)
        return
    end = f"\n\nid {notice.id}"
    room = MAX_MESSAGE_LENGTH.get(type(channel).get_block_type_slug(), 0)
    text = _truncate(notice.body, room - len(notice.subject) - 2 - len(end) if room else 0) + end
    try:
        with channel.raise_on_failure():
            cast(object, channel.notify(text, notice.subject))  # outside an event loop it sends, and returns nothing
    except Exception as cause:
        raise Unavailable(f"{type(channel).__name__} did not take it: {type(cause).__name__}") from cause


def _truncate(text: str, room: int) -> str:
    """Return the text, cut to so many characters where `room` is not 0."""
    return text if not room or len(text) <= room else f"{text[: max(0, room - 1)]}…"

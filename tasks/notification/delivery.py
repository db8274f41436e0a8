"""Deliver messages to the receivers of an environment until they have arrived; acknowledge alerts."""

from collections.abc import Callable
from datetime import datetime

from prefect.blocks.abstract import NotificationBlock

from blocks.common.errors import PortError
from blocks.environment import Environment
from blocks.notifications.base import Notification, load_channel, send_notification
from blocks.outbox.base import Attempt, Message, Outbox, Signal
from tasks.notification.rules.story import is_alert_open, next_delivery_attempt
from tasks.shared.alerts import CLOSED_CAUSE_LOOKBACK, queue_messages
from tasks.shared.records import DeliveryResult
from tasks.shared.rules.refusal import Refusal


def deliver_messages(
    env: Environment,
    outbox: Outbox,
    clock: Callable[[], datetime],
    open_block: Callable[[str], NotificationBlock] = load_channel,
) -> DeliveryResult:
    """Deliver each message whose time has come; what fails stays, and is tried again later."""
    for cause in outbox.causes(clock() - CLOSED_CAUSE_LOOKBACK):
        queue_messages(env, outbox, cause, clock())
    blocks = {channel.name: channel.block for channel in env.alerts.channels}
    delivered, failed, waiting = 0, 0, 0
    for message, attempts in outbox.undelivered():
        if attempts and next_delivery_attempt(len(attempts), attempts[-1].at) > clock():
            waiting += 1
            continue
        said = _send_message(message, blocks.get(message.channel, ""), open_block)
        outbox.attempted(Attempt(message.id, len(attempts) + 1, not said, said, clock()))
        delivered, failed = delivered + (not said), failed + bool(said)
    return DeliveryResult(delivered=delivered, failed=failed, not_due=waiting)


def _send_message(message: Message, reference: str, open_block: Callable[[str], NotificationBlock]) -> str:
    """Send one message, and return what went wrong, or "" when the receiver has taken it."""
    if not reference:
        return f"the environment has no channel {message.channel!r} any more"
    notice = Notification(message.id, message.subject, message.body, message.severity, message.cause, message.occasion)
    try:
        send_notification(open_block(reference), notice)
    except PortError as failed:
        return str(failed)
    return ""


def acknowledge_alert(outbox: Outbox, cause: str, acknowledged_by: str, note: str, now: datetime) -> Signal:
    """Write down that somebody looks after an open alert: it is not reminded of until it becomes graver.

    Raises:
        Refusal: it is not open; the message lists what is.
    """
    signals = outbox.signals(cause)
    if not is_alert_open(signals):
        known = ", ".join(open_causes(outbox, now)) or "none"
        raise Refusal("no such alert is open", value=cause, remedy=f"Open alerts: {known}.")
    last = signals[-1]
    key = f"acknowledged:{last.key}:{acknowledged_by}"
    return outbox.signal(
        Signal(key, cause, last.event, "acknowledged", last.model, last.environment, last.severity, last.owner,
               note, now, {}, acknowledged_by)
    )  # fmt: skip


def open_causes(outbox: Outbox, now: datetime) -> tuple[str, ...]:
    """Return the causes that last."""
    return tuple(cause for cause in outbox.causes(now) if is_alert_open(outbox.signals(cause)))

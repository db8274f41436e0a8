"""Deliver queued messages over the environment's channels, and acknowledge alerts."""

from collections.abc import Callable
from datetime import datetime

from prefect.blocks.abstract import NotificationBlock

from blocks.common.errors import PortError
from blocks.environment import Environment
from blocks.notifications.base import Notification, load_channel, send_notification
from blocks.outbox.base import AlertMessage, Outbox, SendAttempt
from blocks.records.alerts import AlertRecord
from tasks.approval.rules.actions import Act, Actor
from tasks.approval.rules.names import check_reason
from tasks.notification.rules.story import is_alert_open, next_delivery_attempt
from tasks.shared.actions import order_act
from tasks.shared.alerts import CLOSED_CAUSE_LOOKBACK, queue_messages
from tasks.shared.records import DeliveryResult
from tasks.shared.rules.refusal import Refusal


def deliver_messages(
    env: Environment,
    outbox: Outbox,
    clock: Callable[[], datetime],
    open_block: Callable[[str], NotificationBlock] = load_channel,
) -> DeliveryResult:
    """Deliver each message that is due. A message that fails stays queued, and is retried later."""
    for cause in outbox.active_causes(clock() - CLOSED_CAUSE_LOOKBACK):
        queue_messages(env, outbox, cause, clock())
    blocks = {channel.name: channel.block for channel in env.alerts.channels}
    delivered, failed, waiting = 0, 0, 0
    for message, attempts in outbox.undelivered():
        if attempts and next_delivery_attempt(len(attempts), attempts[-1].at) > clock():
            waiting += 1
            continue
        problem = _send_message(message, blocks.get(message.channel, ""), open_block)
        outbox.record_attempt(SendAttempt(message.id, len(attempts) + 1, not problem, problem, clock()))
        delivered, failed = delivered + (not problem), failed + bool(problem)
    return DeliveryResult(delivered=delivered, failed=failed, not_due=waiting)


def _send_message(message: AlertMessage, reference: str, open_block: Callable[[str], NotificationBlock]) -> str:
    """Send one message. Return the problem, or "" when the receiver accepted the message."""
    if not reference:
        return f"the environment no longer has the channel {message.channel!r}"
    notice = Notification(message.id, message.subject, message.body, message.severity, message.cause, message.occasion)
    try:
        send_notification(open_block(reference), notice)
    except PortError as failed:
        return str(failed)
    return ""


def acknowledge(env: Environment, cause: str, actor: Actor, note: str, channel: str, now: datetime) -> AlertRecord:
    """Sign an order for acknowledging an open alert, and record the acknowledgement.

    Raises:
        Refusal: the alert is not open, the policy does not allow it, or a text has control characters.
    """
    outbox = env.outbox()
    model = _open_signals(outbox, cause, now)[-1].model
    why = check_reason(note, "note", minimum=0)
    signed = order_act(env, Act("acknowledge", env.name, model, cause), actor, reason=why, channel=channel, now=now)
    return acknowledge_alert(outbox, cause, signed, why, now)


def acknowledge_alert(outbox: Outbox, cause: str, actor: Actor, note: str, now: datetime) -> AlertRecord:
    """Record that a person acknowledged an open alert. Reminders stop until its severity increases.

    Raises:
        Refusal: the alert is not open. The message lists the open ones.
    """
    last = _open_signals(outbox, cause, now)[-1]
    key = f"acknowledged:{last.key}:{actor.shown}"
    return outbox.record_signal(
        AlertRecord(key, cause, last.event, "acknowledged", last.model, last.environment, last.severity, last.owner,
               note, now, {}, actor.shown, actor.order_id)
    )  # fmt: skip


def _open_signals(outbox: Outbox, cause: str, now: datetime) -> tuple[AlertRecord, ...]:
    signals = outbox.signals(cause)
    if not is_alert_open(signals):
        known = ", ".join(open_causes(outbox, now)) or "none"
        raise Refusal("no such alert is open", value=cause, remedy=f"Open alerts: {known}.")
    return signals


def open_causes(outbox: Outbox, now: datetime) -> tuple[str, ...]:
    """Return the names of the open alerts."""
    return tuple(cause for cause in outbox.active_causes(now) if is_alert_open(outbox.signals(cause)))

"""Alerts: list open alerts, acknowledge an alert, deliver pending messages."""

from collections.abc import Iterator
from datetime import UTC, datetime

from blocks.outbox.base import Outbox
from local.stack import running_environment
from tasks.notification import delivery
from tasks.shared.rules.refusal import Refusal


def open_alerts(environment: str) -> str:
    """Return the current alerts of an environment as text."""
    return "\n".join(alerts_text(running_environment(environment).outbox(), datetime.now(UTC)))


def alerts_text(outbox: Outbox, now: datetime) -> Iterator[str]:
    """Yield the lines of the list: each open alert, then each message that is not delivered."""
    causes = delivery.open_causes(outbox, now)
    yield from ("no alert is open",) if not causes else ()
    for cause in causes:
        signals = outbox.signals(cause)
        raised = [signal for signal in signals if signal.state == "raised"][-1]
        acknowledgements = [signal for signal in signals if signal.state == "acknowledged"]
        who = (
            f", acknowledged by {acknowledgements[-1].acknowledged_by}"
            if acknowledgements and acknowledgements[-1].at >= raised.at
            else ""
        )
        yield f"{raised.severity:<8} {cause}  since {raised.at:%Y-%m-%d %H:%M %Z}{who}"
        yield f"         {raised.summary}"
        yield from (f"         {label}: {target}" for label, target in raised.links.items())
    waiting = outbox.undelivered()
    if waiting:
        yield f"{len(waiting)} messages are not delivered yet:"
    for message, attempts in waiting:
        last = f"attempt {len(attempts)}: {attempts[-1].error}" if attempts else "not tried yet"
        yield f"         {message.channel}: {message.subject} ({last})"


def acknowledge(environment: str, alert: str, by: str, note: str) -> str:
    """Record who handles an alert, so that no reminders are sent; return a message.

    Raises:
        Refusal: no name is given, or no such alert is open.
    """
    outbox = running_environment(environment).outbox()
    if not by.strip():
        raise Refusal("an acknowledgement needs a name", remedy="Name who handles it: --by you.")
    acknowledged = delivery.acknowledge_alert(outbox, alert, by.strip(), note, datetime.now(UTC))
    return f"acknowledged by {acknowledged.acknowledged_by}: {acknowledged.cause}"


def deliver(environment: str) -> str:
    """Deliver the messages that are due; return a message with the counts."""
    env = running_environment(environment)
    counts = delivery.deliver_messages(env, env.outbox(), lambda: datetime.now(UTC))
    return f"{counts.delivered} delivered, {counts.failed} failed, {counts.not_due} scheduled for later"

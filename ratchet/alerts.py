"""The alerts that are open, who looks after one, and what waits to be delivered."""

from collections.abc import Iterator
from datetime import UTC, datetime

from blocks.outbox.base import Outbox
from ratchet.running import running
from tasks.notification import delivery
from tasks.shared.rules.refusal import Refusal


def open_alerts(environment: str) -> str:
    """Return the list of an environment as it is now."""
    return "\n".join(alerts_text(running(environment).outbox(), datetime.now(UTC)))


def alerts_text(outbox: Outbox, now: datetime) -> Iterator[str]:
    """Give the lines of the list: each open alert, then each message that no receiver has taken."""
    causes = delivery.open_causes(outbox, now)
    yield from ("no alert is open",) if not causes else ()
    for cause in causes:
        signals = outbox.signals(cause)
        raised = [signal for signal in signals if signal.state == "raised"][-1]
        acknowledgements = [signal for signal in signals if signal.state == "acknowledged"]
        who = (
            f", acknowledged by {acknowledgements[-1].by}"
            if acknowledgements and acknowledgements[-1].at >= raised.at
            else ""
        )
        yield f"{raised.severity:<8} {cause}  since {raised.at:%Y-%m-%d %H:%M %Z}{who}"
        yield f"         {raised.sentence}"
        yield from (f"         {label}: {target}" for label, target in raised.links.items())
    waiting = outbox.undelivered()
    if waiting:
        yield f"{len(waiting)} messages are not delivered yet:"
    for message, attempts in waiting:
        last = f"attempt {len(attempts)}: {attempts[-1].said}" if attempts else "not tried yet"
        yield f"         {message.channel}: {message.subject} ({last})"


def acknowledge(environment: str, alert: str, by: str, note: str) -> str:
    """Write down who looks after an alert, which is then not reminded of; return what to tell.

    Raises:
        Refusal: nobody is named, or no such alert is open.
    """
    outbox = running(environment).outbox()
    if not by.strip():
        raise Refusal("an acknowledgement needs a name", remedy="Say who looks after it: --by you.")
    made = delivery.acknowledge_alert(outbox, alert, by.strip(), note, datetime.now(UTC))
    return f"acknowledged by {made.by}: {made.cause}"


def deliver(environment: str) -> str:
    """Deliver the messages whose time has come; return what to tell."""
    env = running(environment)
    done = delivery.deliver_messages(env, env.outbox(), lambda: datetime.now(UTC))
    return f"{done.delivered} delivered, {done.failed} refused or out of reach, {done.not_due} wait for their time"

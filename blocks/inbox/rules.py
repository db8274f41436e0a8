"""What holds in every inbox: what is noted of an odd delivery, and how what cannot be done is told."""

from blocks.common.errors import Conflict, NotFound
from blocks.inbox.base import Delivery, Note, Turn


def altered(known: Delivery, given: Delivery) -> Note:
    """Return the note of an id that came with another body: forged, or the sender is at fault."""
    text = f"came again with another body: sha256 {given.digest}, not {known.digest}; nothing was done"
    return Note(given.id, "altered", text, given.received_at)


def replayed(known: Delivery, given: Delivery) -> Note:
    """Return the note of a body that came under a second id."""
    text = f"has the body of {known.id}, which came at {known.received_at.isoformat()}; nothing was done"
    return Note(given.id, "replayed", text, given.received_at)


def no_delivery(delivery_id: str) -> NotFound:
    """Return the error of an unknown delivery."""
    return NotFound(f"inbox: there is no delivery {delivery_id!r}. List them: python -m ratchet gateway list")


def no_turn(turn: Turn) -> NotFound:
    """Return the error of a turn that nobody asked for."""
    return NotFound(f"inbox: turn {turn.number} of {turn.delivery.id!r} was never asked for")


def still_open(delivery_id: str) -> Conflict:
    """Return the error of asking again before the last turn has ended."""
    return Conflict(f"inbox: {delivery_id!r} waits for the dispatcher already; look again in a moment")

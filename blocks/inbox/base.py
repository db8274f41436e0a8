"""The inbox port: deliveries of git hosts, their outcomes, and leases for those who process them. Rows are only added.

A delivery is recorded once. Each time that it is to be processed is a *turn* (`ProcessingAttempt`): the first comes
with the delivery, another one when a person requests it. A turn is open until its outcome is recorded.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from blocks.common.errors import Conflict, NotFound

DeliveryState = Literal["open", "started", "ignored", "refused"]

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""Before any time at which a lease is requested."""


@dataclass(frozen=True)
class Delivery:
    """A delivery: `id` is the sender's name and its own id (`github:6f1e…`).

    `digest` is the SHA-256 of the received body, `change` its content as JSON. `ref` is a branch or a tag. `seal` is
    the signature of whoever verified the delivery, over all other fields; "" when nobody signed.
    """

    id: str
    sender: str
    event: str
    repository: str
    ref: str
    commit: str
    digest: str
    change: str
    received_at: datetime
    seal: str = ""


@dataclass(frozen=True)
class IncomingDelivery:
    """A delivery to record.

    Its first turn is open, or has ended with `outcome` if that is known already. With `reject_repeated_body`, a body
    that this sender delivered before under another id is refused (`replayed`).
    """

    delivery: Delivery
    outcome: "ProcessingOutcome | None" = None
    reject_repeated_body: bool = True


@dataclass(frozen=True)
class Receipt:
    """How a delivery was recorded.

    `new`; `repeated` (same id, same body); `altered` (same id, another body); or `replayed` (the body came before,
    under the id of `recorded`).
    """

    status: Literal["new", "repeated", "altered", "replayed"]
    recorded: Delivery


@dataclass(frozen=True)
class ProcessingAttempt:
    """Turn `number` (from 0) of a delivery, and who requested it."""

    delivery: Delivery
    number: int
    requested_by: str
    requested_at: datetime

    @property
    def key(self) -> str:
        """The unique name of this turn."""
        return f"{self.delivery.id}#{self.number}"


@dataclass(frozen=True)
class StartedRun:
    """A flow run that a turn started: its id, the rule that started it, and the deployment."""

    run_id: str
    rule: str
    deployment: str


@dataclass(frozen=True)
class ProcessingOutcome:
    """How a turn ended, and why."""

    state: Literal["started", "ignored", "refused"]
    reason: str
    runs: tuple[StartedRun, ...] = ()


@dataclass(frozen=True)
class DeliveryStatus:
    """A delivery with its last turn, for people. `outcome` is None while that turn is open."""

    turn: ProcessingAttempt
    outcome: ProcessingOutcome | None

    @property
    def state(self) -> DeliveryState:
        """The state of the last turn."""
        return self.outcome.state if self.outcome else "open"


@dataclass(frozen=True)
class InboxNote:
    """An incident that is no delivery: an invalid signature, or a known id with another body."""

    subject_id: str
    kind: str
    text: str
    at: datetime


@dataclass(frozen=True)
class UnreportedRun:
    """A started run whose end was not reported yet, and the last reported status ("": none)."""

    run: StartedRun
    delivery: Delivery
    last_status: str


class Inbox(ABC):
    """Deliveries are only added. What was recorded survives a crash of the machine."""

    def receive(
        self, delivery: Delivery, *, outcome: ProcessingOutcome | None = None, once_per_body: bool = True
    ) -> Receipt:
        """Record one delivery; see `IncomingDelivery` and `receive_all`."""
        return self.receive_all([IncomingDelivery(delivery, outcome, once_per_body)])[0]

    @abstractmethod
    def receive_all(self, arrivals: Sequence[IncomingDelivery]) -> tuple[Receipt, ...]:
        """Record deliveries with their first turns, all of them or none, in one transaction.

        A repeated delivery changes nothing. An altered or replayed one adds a note and is not processed.
        """

    @abstractmethod
    def delivery_status(self, delivery_id: str) -> DeliveryStatus:
        """Return a delivery with its last turn. Raises NotFound."""

    @abstractmethod
    def delivery_statuses(self, limit: int = 50, *, state: DeliveryState | None = None) -> tuple[DeliveryStatus, ...]:
        """Return deliveries, newest first, each with its last turn; with `state` only those of that state."""

    @abstractmethod
    def commits(self, repository: str, ref: str) -> tuple[str, ...]:
        """Return the delivered commits of a branch or tag, newest delivery first."""

    @abstractmethod
    def request_reprocessing(self, delivery_id: str, by: str, at: datetime) -> ProcessingAttempt:
        """Open another turn of a delivery. Raises NotFound, or Conflict if its last turn is still open."""

    @abstractmethod
    def pending_attempts(self, limit: int = 100) -> tuple[ProcessingAttempt, ...]:
        """Return the turns without an outcome, oldest first."""

    @abstractmethod
    def finish_attempt(self, turn: ProcessingAttempt, outcome: ProcessingOutcome, at: datetime) -> ProcessingOutcome:
        """Record how a turn ended, with its runs, all or nothing; the first outcome stays, and is returned."""

    @abstractmethod
    def add_note(self, note: InboxNote) -> None:
        """Add a note."""

    @abstractmethod
    def notes(self, limit: int = 50) -> tuple[InboxNote, ...]:
        """Return the notes, newest first."""

    @abstractmethod
    def unreported_runs(self, limit: int = 100) -> tuple[UnreportedRun, ...]:
        """Return the started runs whose end has not been reported, oldest first."""

    @abstractmethod
    def record_report(self, run_id: str, status: str, text: str, at: datetime, *, final: bool) -> None:
        """Record what was reported about a started run; after a final report it is no longer unreported.

        `status` is a word or two, which `UnreportedRun.last_status` repeats; `text` is the report for people, in
        Markdown, or "". The first final report stays.
        """

    @abstractmethod
    def report_text(self, run_id: str) -> str:
        """Return the Markdown of the last report of a run, or ""."""

    @abstractmethod
    def acquire_lease(self, name: str, holder: str, now: datetime, until: datetime) -> int | None:
        """Acquire or extend the lease `name`; return its number, or None if somebody else holds it.

        It is held until `until`. The number grows with each change of the holder.
        """

    def release_lease(self, name: str, holder: str) -> None:
        """Release `name` if `holder` holds it, by a lease that ended long ago."""
        self.acquire_lease(name, holder, LONG_AGO, LONG_AGO)


def altered_note(known: Delivery, given: Delivery) -> InboxNote:
    """Return the note about a known id with another body: it is forged, or the sender is at fault."""
    text = f"came again with another body: sha256 {given.digest}, not {known.digest}; nothing was done"
    return InboxNote(given.id, "altered", text, given.received_at)


def replayed_note(known: Delivery, given: Delivery) -> InboxNote:
    """Return the note about a body that came under a second id."""
    text = f"has the body of {known.id}, which came at {known.received_at.isoformat()}; nothing was done"
    return InboxNote(given.id, "replayed", text, given.received_at)


def unknown_delivery_error(delivery_id: str) -> NotFound:
    """Return the error for an unknown delivery."""
    return NotFound(f"inbox: there is no delivery {delivery_id!r}. List them: python -m ratchet gateway list")


def unknown_attempt_error(turn: ProcessingAttempt) -> NotFound:
    """Return the error for a turn that was never requested."""
    return NotFound(f"inbox: turn {turn.number} of {turn.delivery.id!r} was never requested")


def still_pending_error(delivery_id: str) -> Conflict:
    """Return the error for a request of another turn before the last one has ended."""
    return Conflict(f"inbox: {delivery_id!r} waits for the dispatcher already; look again in a moment")

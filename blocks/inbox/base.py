"""The inbox port: what git hosts delivered, what became of it, and who may work on it now. Rows are only added.

A delivery is taken in once and for ever. Each time it is to be acted on is a *turn*: the first comes with the
delivery, further ones when a person asks for it again. A turn is open until its outcome is written down.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from blocks.common.errors import Conflict, NotFound

DeliveryState = Literal["open", "started", "ignored", "refused"]

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""Before any moment at which a lease is asked for."""


@dataclass(frozen=True)
class Delivery:
    """What a sender delivered: `id` is the sender's, with its name before it (`github:6f1e…`).

    `digest` is the SHA-256 of the body as it came, `change` (JSON) what it says. `ref` is a branch or a tag.
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


@dataclass(frozen=True)
class IncomingDelivery:
    """A delivery that is to be taken in.

    Its first processing attempt is open, or ended with `outcome` at once when the outcome is known already. With
    `reject_repeated_body`, a body that this sender delivered before under another id is refused (`replayed`).
    """

    delivery: Delivery
    outcome: "ProcessingOutcome | None" = None
    reject_repeated_body: bool = True


@dataclass(frozen=True)
class Receipt:
    """How a delivery was taken: `new`; `repeated` (same id, same body); `altered` (same id, another body);
    `replayed` (the body came before, under the id of `recorded`)."""  # fmt: skip

    status: Literal["new", "repeated", "altered", "replayed"]
    recorded: Delivery


@dataclass(frozen=True)
class ProcessingAttempt:
    """The `number`th time (from 0) that a delivery is to be acted on, and on whose word."""

    delivery: Delivery
    number: int
    requested_by: str
    requested_at: datetime

    @property
    def key(self) -> str:
        """What tells this turn from every other one."""
        return f"{self.delivery.id}#{self.number}"


@dataclass(frozen=True)
class StartedRun:
    """A flow run that a turn started: its id, the rule that asked for it, and the deployment."""

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
    """A delivery with its last turn: what a person is shown. `outcome` is None while that turn is open."""

    turn: ProcessingAttempt
    outcome: ProcessingOutcome | None

    @property
    def state(self) -> DeliveryState:
        """The state of the last turn."""
        return self.outcome.state if self.outcome else "open"


@dataclass(frozen=True)
class InboxNote:
    """Something worth knowing that is no delivery: a forged signature, an id that came with another body."""

    subject_id: str
    kind: str
    text: str
    at: datetime


@dataclass(frozen=True)
class UnreportedRun:
    """A started run whose end has not been reported back yet, and what was reported last ("" for nothing)."""

    run: StartedRun
    delivery: Delivery
    last_status: str


class Inbox(ABC):
    """Deliveries are only added. What is taken in here survives a crash of the machine."""

    def receive(
        self, delivery: Delivery, *, outcome: ProcessingOutcome | None = None, once_per_body: bool = True
    ) -> Receipt:
        """Take in one delivery; see `IncomingDelivery` and `receive_all`."""
        return self.receive_all([IncomingDelivery(delivery, outcome, once_per_body)])[0]

    @abstractmethod
    def receive_all(self, arrivals: Sequence[IncomingDelivery]) -> tuple[Receipt, ...]:
        """Take in deliveries with their first turns, all of them or none, in one transaction.

        A repeat changes nothing. One that is `altered` or `replayed` leaves a note, and nothing is to be done.
        """

    @abstractmethod
    def delivery_status(self, delivery_id: str) -> DeliveryStatus:
        """Return a delivery with its last turn. Raises NotFound."""

    @abstractmethod
    def delivery_statuses(self, limit: int = 50, *, state: DeliveryState | None = None) -> tuple[DeliveryStatus, ...]:
        """Return deliveries, newest first, with the last turn of each; those of one state alone, when given."""

    @abstractmethod
    def commits(self, repository: str, ref: str) -> tuple[str, ...]:
        """Return the commits of a branch or tag that were delivered, newest delivery first."""

    @abstractmethod
    def request_reprocessing(self, delivery_id: str, by: str, at: datetime) -> ProcessingAttempt:
        """Open a further turn of a delivery.

        Raises:
            NotFound: no such delivery.
            Conflict: its last turn is open still.
        """

    @abstractmethod
    def pending_attempts(self, limit: int = 100) -> tuple[ProcessingAttempt, ...]:
        """Return the turns that wait for an outcome, oldest first."""

    @abstractmethod
    def finish_attempt(self, turn: ProcessingAttempt, outcome: ProcessingOutcome, at: datetime) -> ProcessingOutcome:
        """Write down how a turn ended, with its runs, whole or not at all; the first outcome stays, and is returned."""

    @abstractmethod
    def add_note(self, note: InboxNote) -> None:
        """Write something down."""

    @abstractmethod
    def notes(self, limit: int = 50) -> tuple[InboxNote, ...]:
        """Return what was written down, newest first."""

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
        """Hold `name` until then, alone: return the holder's number, or None when somebody else holds it.

        The number grows with each change of holder; who holds it already holds it longer.
        """

    def release_lease(self, name: str, holder: str) -> None:
        """Let go of `name`, if `holder` holds it: a lease that ended long ago is everybody's."""
        self.acquire_lease(name, holder, LONG_AGO, LONG_AGO)


def altered_note(known: Delivery, given: Delivery) -> InboxNote:
    """Return the note of an id that came with another body: forged, or the sender is at fault."""
    text = f"came again with another body: sha256 {given.digest}, not {known.digest}; nothing was done"
    return InboxNote(given.id, "altered", text, given.received_at)


def replayed_note(known: Delivery, given: Delivery) -> InboxNote:
    """Return the note of a body that came under a second id."""
    text = f"has the body of {known.id}, which came at {known.received_at.isoformat()}; nothing was done"
    return InboxNote(given.id, "replayed", text, given.received_at)


def unknown_delivery_error(delivery_id: str) -> NotFound:
    """Return the error of an unknown delivery."""
    return NotFound(f"inbox: there is no delivery {delivery_id!r}. List them: python -m ratchet gateway list")


def unknown_attempt_error(turn: ProcessingAttempt) -> NotFound:
    """Return the error of a turn that was never requested."""
    return NotFound(f"inbox: turn {turn.number} of {turn.delivery.id!r} was never requested")


def still_pending_error(delivery_id: str) -> Conflict:
    """Return the error of asking again before the last turn has ended."""
    return Conflict(f"inbox: {delivery_id!r} waits for the dispatcher already; look again in a moment")

"""The inbox port: what git hosts delivered, what became of it, and who may work on it now. Rows are only added.

A delivery is taken in once and for ever. Each time it is to be acted on is a *turn*: the first comes with the
delivery, further ones when a person asks for it again. A turn is open until its outcome is written down.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

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
class Arrival:
    """A delivery that is to be taken in.

    Its first turn is open, or ended with `outcome` at once, when that is known already. With `once_per_body` a body
    that this sender delivered before under another id is refused (`replayed`).
    """

    delivery: Delivery
    outcome: "Outcome | None" = None
    once_per_body: bool = True


@dataclass(frozen=True)
class Receipt:
    """How a delivery was taken: `new`; `repeated` (same id, same body); `altered` (same id, another body);
    `replayed` (the body came before, under the id of `recorded`)."""  # fmt: skip

    how: Literal["new", "repeated", "altered", "replayed"]
    recorded: Delivery


@dataclass(frozen=True)
class Turn:
    """The `number`th time (from 0) that a delivery is to be acted on, and on whose word."""

    delivery: Delivery
    number: int
    asked_by: str
    asked_at: datetime

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
class Outcome:
    """How a turn ended, and why."""

    state: Literal["started", "ignored", "refused"]
    reason: str
    runs: tuple[StartedRun, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A delivery with its last turn: what a person is shown. `outcome` is None while that turn is open."""

    turn: Turn
    outcome: Outcome | None

    @property
    def state(self) -> DeliveryState:
        """The state of the last turn."""
        return self.outcome.state if self.outcome else "open"


@dataclass(frozen=True)
class Note:
    """Something worth knowing that is no delivery: a forged signature, an id that came with another body."""

    about: str
    kind: str
    text: str
    at: datetime


@dataclass(frozen=True)
class UnreportedRun:
    """A started run whose end has not been reported back yet, and what was reported last ("" for nothing)."""

    run: StartedRun
    delivery: Delivery
    last: str


class Inbox(ABC):
    """Deliveries are only added. What is taken in here survives a crash of the machine."""

    def receive(self, delivery: Delivery, *, outcome: Outcome | None = None, once_per_body: bool = True) -> Receipt:
        """Take in one delivery; see `Arrival` and `receive_all`."""
        return self.receive_all([Arrival(delivery, outcome, once_per_body)])[0]

    @abstractmethod
    def receive_all(self, arrivals: Sequence[Arrival]) -> tuple[Receipt, ...]:
        """Take in deliveries with their first turns, all of them or none, in one transaction.

        A repeat changes nothing. One that is `altered` or `replayed` leaves a note, and nothing is to be done.
        """

    @abstractmethod
    def entry(self, delivery_id: str) -> Entry:
        """Return a delivery with its last turn. Raises NotFound."""

    @abstractmethod
    def entries(self, limit: int = 50, *, state: DeliveryState | None = None) -> tuple[Entry, ...]:
        """Return deliveries, newest first, with the last turn of each; those of one state alone, when given."""

    @abstractmethod
    def commits(self, repository: str, ref: str) -> tuple[str, ...]:
        """Return the commits of a branch or tag that were delivered, newest delivery first."""

    @abstractmethod
    def ask_again(self, delivery_id: str, by: str, at: datetime) -> Turn:
        """Open a further turn of a delivery.

        Raises:
            NotFound: no such delivery.
            Conflict: its last turn is open still.
        """

    @abstractmethod
    def open_turns(self, limit: int = 100) -> tuple[Turn, ...]:
        """Return the turns that wait for an outcome, oldest first."""

    @abstractmethod
    def end_turn(self, turn: Turn, outcome: Outcome, at: datetime) -> Outcome:
        """Write down how a turn ended, with its runs, whole or not at all; the first outcome stays, and is returned."""

    @abstractmethod
    def note(self, note: Note) -> None:
        """Write something down."""

    @abstractmethod
    def notes(self, limit: int = 50) -> tuple[Note, ...]:
        """Return what was written down, newest first."""

    @abstractmethod
    def unreported_runs(self, limit: int = 100) -> tuple[UnreportedRun, ...]:
        """Return the started runs whose end has not been reported, oldest first."""

    @abstractmethod
    def report(self, run_id: str, said: str, text: str, at: datetime, *, final: bool) -> None:
        """Write down what was reported of a run; after a final report it is no longer unreported.

        Args:
            run_id: a run that was started.
            said: in a word or two; `UnreportedRun.last` is this.
            text: the report for people, in Markdown, or "".
            at: when.
            final: whether the run has ended. The first final report stays.
        """

    @abstractmethod
    def report_text(self, run_id: str) -> str:
        """Return the Markdown of the last report of a run, or ""."""

    @abstractmethod
    def lease(self, name: str, holder: str, now: datetime, until: datetime) -> int | None:
        """Hold `name` until then, alone: return the holder's number, or None when somebody else holds it.

        The number grows with each change of holder; who holds it already holds it longer.
        """

    def release(self, name: str, holder: str) -> None:
        """Let go of `name`, if `holder` holds it: a lease that ended long ago is everybody's."""
        self.lease(name, holder, LONG_AGO, LONG_AGO)

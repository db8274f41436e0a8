"""What the guards look at, and what they say. What could not be found out is said so, and allows nothing."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tasks.shared.rules.cost.budget import Bill, Budget

Kind = Literal["drift", "quality"]


@dataclass(frozen=True)
class Unknown:
    """What could not be found out, and why: no reason to go on."""

    why: str


@dataclass(frozen=True)
class Asked:
    """What watching found: drift or lost quality, when, whether that alert is still open, and in which words."""

    kind: Kind
    at: datetime
    is_open: bool
    sentence: str

    @property
    def because(self) -> str:
        """The reason of a retraining, as whoever approves its result reads it."""
        return f"{self.kind} of {self.at:%Y-%m-%d}: {self.sentence}"


@dataclass(frozen=True)
class Rows:
    """The rows with a label that have landed since the champion's snapshot, and the newest label's time, if any."""

    new: int
    newest: datetime | None


@dataclass(frozen=True)
class Facts:
    """What is so at `now`.

    Attributes:
        now: with a time zone, as all times here.
        asked: what is to be answered.
        started: when the earlier retrainings of this kind were started, oldest first.
        approved: when versions were deployed, each of which people had approved.
        serving_since: since when the version serves that serves now, deployed or taken back; None for no version.
        waiting: the approval requests of the model that nobody has decided, with the times when they lapse.
        rows: what has landed.
        bill: what the run may cost.
        budget: what it may cost at most.
    """

    now: datetime
    asked: Asked
    started: tuple[datetime, ...]
    approved: tuple[datetime, ...]
    serving_since: datetime | None
    waiting: tuple[tuple[str, datetime], ...]
    rows: Rows | Unknown
    bill: Bill | Unknown
    budget: Budget


@dataclass(frozen=True)
class Said:
    """What one guard says: the value that it looked at, in words, its limit, and when it would allow.

    `at` is the moment from which it allows by the clock alone; None where something else has to happen, which
    `until` then says.
    """

    guard: str
    allows: bool
    value: str
    limit: str
    at: datetime | None = None
    until: str = ""

    @property
    def when(self) -> str:
        """When it would allow, in words; "" when it does."""
        if self.allows:
            return ""
        return f"{self.at:%Y-%m-%d %H:%M %Z}" if self.at else self.until

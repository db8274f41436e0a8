"""What the guards look at, and what they say. What could not be found out is said so, and allows nothing."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tasks.shared.rules.cost.budget import BudgetLike, CostBreakdown

TriggerKind = Literal["drift", "quality"]


@dataclass(frozen=True)
class Unknown:
    """What could not be found out, and why: no reason to go on."""

    reason: str


@dataclass(frozen=True)
class RetrainTrigger:
    """What watching found: drift or lost quality, when, whether that alert is still open, and in which words."""

    kind: TriggerKind
    raised_at: datetime
    is_open: bool
    sentence: str

    @property
    def reason(self) -> str:
        """The reason of a retraining, as whoever approves its result reads it."""
        return f"{self.kind} of {self.raised_at:%Y-%m-%d}: {self.sentence}"


@dataclass(frozen=True)
class LabelledRows:
    """The rows with a label that have landed since the champion's snapshot, and the newest label's time, if any."""

    new_rows: int
    newest_label_time: datetime | None


@dataclass(frozen=True)
class RetrainFacts:
    """What is so at `now`.

    Attributes:
        now: with a time zone, as all times here.
        trigger: what is to be answered.
        earlier_retrainings: when the earlier retrainings of this kind were started, oldest first.
        deployed_at: when versions were deployed, each of which people had approved.
        deployed_since: since when the version serves that serves now, deployed or taken back; None for no version.
        pending_approvals: the approval requests of the model that nobody has decided, with the times when they lapse.
        rows: what has landed.
        costs: what the run may cost.
        budget: what it may cost at most.
    """

    now: datetime
    trigger: RetrainTrigger
    earlier_retrainings: tuple[datetime, ...]
    deployed_at: tuple[datetime, ...]
    deployed_since: datetime | None
    pending_approvals: tuple[tuple[str, datetime], ...]
    rows: LabelledRows | Unknown
    costs: CostBreakdown | Unknown
    budget: BudgetLike


@dataclass(frozen=True)
class GuardResult:
    """What one guard says: the value that it looked at, in words, its limit, and when it would allow.

    `passes_at` is the moment from which it allows by the clock alone; None where something else has to happen, which
    `passes_when` then says.
    """

    guard: str
    passed: bool
    value: str
    limit: str
    passes_at: datetime | None = None
    passes_when: str = ""

    @property
    def passes_text(self) -> str:
        """When it would allow, in words; "" when it does."""
        if self.passed:
            return ""
        return f"{self.passes_at:%Y-%m-%d %H:%M %Z}" if self.passes_at else self.passes_when

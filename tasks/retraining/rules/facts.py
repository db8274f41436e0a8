"""The facts that the guards of automatic retraining evaluate, and the guards' results."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tasks.shared.rules.cost.budget import CostBreakdown
from tasks.shared.rules.model.parts import BudgetSpec

TriggerKind = Literal["drift", "quality"]


@dataclass(frozen=True)
class Unknown:
    """A fact that could not be found, and the reason. A guard that needs it fails."""

    reason: str


@dataclass(frozen=True)
class RetrainTrigger:
    """The alert that triggers a retraining: its kind, when it was raised, whether it is open, and its sentence."""

    kind: TriggerKind
    raised_at: datetime
    is_open: bool
    sentence: str

    @property
    def reason(self) -> str:
        """The reason of the retraining, for the approvers."""
        return f"{self.kind} of {self.raised_at:%Y-%m-%d}: {self.sentence}"


@dataclass(frozen=True)
class LabelledRows:
    """The number of labelled rows added since the champion's snapshot, and the newest label's time, if any."""

    new_rows: int
    newest_label_time: datetime | None


@dataclass(frozen=True)
class RetrainFacts:
    """The facts at `now`. All times have a zone.

    Attributes:
        now: the time of the decision.
        trigger: the alert.
        earlier_retrainings: the start times of earlier automatic retrainings, oldest first.
        deployed_at: the times of all deployments (each had an approval).
        deployed_since: when the deployed version was deployed or rolled back to; None without a version.
        pending_approvals: the undecided approval requests of the model, with their expiry times.
        rows: the labelled rows that arrived.
        costs: the worst-case cost of the run.
        budget: the model's budget.
    """

    now: datetime
    trigger: RetrainTrigger
    earlier_retrainings: tuple[datetime, ...]
    deployed_at: tuple[datetime, ...]
    deployed_since: datetime | None
    pending_approvals: tuple[tuple[str, datetime], ...]
    rows: LabelledRows | Unknown
    costs: CostBreakdown | Unknown
    budget: BudgetSpec


@dataclass(frozen=True)
class GuardResult:
    """The result of one guard: the value in words, its limit, and when the guard will pass.

    `passes_at` is the time at which the guard passes by the clock alone. When something else has to happen first, it
    is None, and `passes_when` describes the event.
    """

    guard: str
    passed: bool
    value: str
    limit: str
    passes_at: datetime | None = None
    passes_when: str = ""

    @property
    def passes_text(self) -> str:
        """When the guard will pass, in words; "" when it passes now."""
        if self.passed:
            return ""
        return f"{self.passes_at:%Y-%m-%d %H:%M %Z}" if self.passes_at else self.passes_when

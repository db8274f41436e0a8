"""What watching found: each with its cause, the column, how much, and a sentence for people."""

from dataclasses import dataclass
from typing import Literal

FindingKind = Literal["impossible", "drift", "quality"]
FindingSeverity = Literal["warning", "critical"]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was, or that could not be looked at.

    Attributes:
        kind: `impossible`: it could not be checked; `drift`: it differs from the reference; `quality`: the
            predictions are worse than they were.
        cause: schema, type, volume, freshness, reference, rows, nulls, new values, distribution, labels, quality.
        column: the column, or "" for the whole.
        effect_size: how much, in the cause's own measure; NaN where there is none.
        severity: how urgent.
        text: a full sentence.
        summary: the same in a few words, to be listed with others.
    """

    kind: FindingKind
    cause: str
    column: str
    text: str
    effect_size: float = float("nan")
    severity: FindingSeverity = "warning"
    summary: str = ""

    @property
    def key(self) -> str:
        """What makes it the same finding in another window: its cause and column."""
        return f"{self.cause}:{self.column}"


@dataclass(frozen=True)
class MonitoringRules:
    """When something counts as found.

    Attributes:
        windows: how many of the newest windows are looked at (n).
        min_breached_windows: in how many of them the same must be found before it is told (k).
        minimum_rows: a window with fewer rows is not judged.
        psi_threshold: the least population stability index of a column that counts.
        critical_psi: the index from which it is critical; so is any of the predictions.
        significance_level: probability of one false finding among all columns of a window, by chance alone.
        min_missing_change: the least change of the share of missing values, 0 to 1, that counts.
        min_unseen_share: the least share of rows with values that the reference does not have.
        min_label_change: the least change of a class's share among labels, 0 to 1, that counts.
        label_significance_level: probability of a false finding among labels, by chance alone, in one look.
        max_volume_factor: how many times more or fewer rows than usual count.
    """

    windows: int = 3
    min_breached_windows: int = 2
    minimum_rows: int = 200
    psi_threshold: float = 0.1
    critical_psi: float = 0.25
    significance_level: float = 0.01
    min_missing_change: float = 0.05
    min_unseen_share: float = 0.005
    min_label_change: float = 0.05
    label_significance_level: float = 0.001
    max_volume_factor: float = 3.0

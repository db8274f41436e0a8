"""What watching found: each with its cause, the column, how much, and a sentence for people."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["impossible", "drift", "quality"]
Severity = Literal["warning", "critical"]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was, or that could not be looked at.

    Attributes:
        kind: `impossible`: it could not be checked; `drift`: it differs from the reference; `quality`: the
            predictions are worse than they were.
        cause: schema, type, volume, freshness, reference, rows, nulls, new values, distribution, labels, quality.
        column: the column, or "" for the whole.
        effect: how much, in the cause's own measure; NaN where there is none.
        severity: how urgent.
        text: a full sentence.
        short: the same in a few words, to be listed with others.
    """

    kind: Kind
    cause: str
    column: str
    text: str
    effect: float = float("nan")
    severity: Severity = "warning"
    short: str = ""

    @property
    def key(self) -> str:
        """What makes it the same finding in another window: its cause and column."""
        return f"{self.cause}:{self.column}"


@dataclass(frozen=True)
class WatchRules:
    """When something counts as found.

    Attributes:
        windows: how many of the newest windows are looked at (n).
        needed: in how many of them the same must be found before it is told (k).
        minimum_rows: a window with fewer rows is not judged.
        effect: the least population stability index of a column that counts.
        severe: the index from which it is critical; so is any of the predictions.
        level: probability of one false finding among all columns of a window, by chance alone.
        missing_change: the least change of the share of missing values, 0 to 1, that counts.
        unseen_share: the least share of rows with values that the reference does not have.
        label_change: the least change of a class's share among labels, 0 to 1, that counts.
        label_level: probability of a false finding among labels, by chance alone, in one look.
        volume_factor: how many times more or fewer rows than usual count.
    """

    windows: int = 3
    needed: int = 2
    minimum_rows: int = 200
    effect: float = 0.1
    severe: float = 0.25
    level: float = 0.01
    missing_change: float = 0.05
    unseen_share: float = 0.005
    label_change: float = 0.05
    label_level: float = 0.001
    volume_factor: float = 3.0

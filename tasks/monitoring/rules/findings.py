"""Findings of a monitoring run, and the rules that decide what counts as a finding."""

from dataclasses import dataclass
from typing import Literal

FindingKind = Literal["impossible", "drift", "quality"]
FindingSeverity = Literal["warning", "critical"]


@dataclass(frozen=True)
class Finding:
    """One deviation from the reference, or one check that was not possible.

    Attributes:
        kind: `impossible`: the check was not possible; `drift`: the data differs from the reference; `quality`: the
            predictions are worse than at promotion.
        cause: schema, type, volume, freshness, reference, rows, nulls, new values, distribution, labels, quality.
        column: the column, or "" for all rows.
        effect_size: the size of the deviation, in a unit that depends on the cause; NaN without one.
        severity: warning or critical.
        text: a full sentence.
        summary: the same in a few words, for lists.
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
        """The cause and column. Findings of two windows with the same key are the same finding."""
        return f"{self.cause}:{self.column}"


@dataclass(frozen=True)
class MonitoringRules:
    """The thresholds of findings.

    Attributes:
        windows: the number of the newest windows that are compared.
        min_breached_windows: a finding is raised when it occurs in at least this many of them.
        minimum_rows: a window with fewer rows is not compared.
        psi_threshold: the smallest population stability index of a column that is drift.
        critical_psi: the index from which drift is critical. Drift of predictions is always critical.
        significance_level: the probability of any false finding among all columns of a window.
        min_missing_change: the smallest change of the share of missing values, 0 to 1, that is a finding.
        min_unseen_share: the smallest share of rows with unseen values, 0 to 1, that is a finding.
        min_label_change: the smallest change of a class's share among labels, 0 to 1, that is a finding.
        label_significance_level: the probability of a false finding of label shift in one monitoring run.
        max_volume_factor: more or fewer rows than usual by this factor are a finding.
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

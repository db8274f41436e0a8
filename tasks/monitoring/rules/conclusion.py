"""The conclusion of a monitoring run: an outcome, a sentence, and the findings and measures behind them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Literal

from tasks.monitoring.rules.drift import ColumnDrift
from tasks.monitoring.rules.findings import Finding, FindingSeverity
from tasks.monitoring.rules.quality import UNMEASURABLE, QualityMetric

MonitoringOutcome = Literal["no_drift", "drift", "degraded", "not_checked"]

FINDING_EVENTS = {
    "drift": "model.drift.detected",
    "quality": "model.quality.degraded",
    "impossible": "model.monitoring.failed",
}
"""The event of each kind of finding."""

MAX_COLUMNS_NAMED = 3


@dataclass(frozen=True)
class MonitoringReport:
    """The report of a monitoring run.

    Attributes:
        outcome: the worst outcome of the findings, in the order "degraded", "drift", "not_checked", "no_drift".
        sentence: the reason of the outcome, in one sentence.
        findings: all findings, the most important first.
        column_drifts: the columns of the newest compared window, the largest index first.
        rows_per_window: the number of rows of the windows, newest first.
        quality_metrics: the quality metrics; empty without labels.
        notes: full sentences on what was not monitored, by configuration.
    """

    model: str
    version: str
    outcome: MonitoringOutcome
    sentence: str
    findings: tuple[Finding, ...]
    column_drifts: tuple[ColumnDrift, ...] = ()
    rows_per_window: tuple[int, ...] = ()
    quality_metrics: tuple[QualityMetric, ...] = ()
    notes: tuple[str, ...] = ()

    def findings_of(self, kind: str) -> tuple[Finding, ...]:
        """Return the findings of one kind."""
        return tuple(finding for finding in self.findings if finding.kind == kind)

    def sentence_is_of(self, kind: str) -> bool:
        """Return whether the sentence is about findings of this kind."""
        return {"degraded": "quality", "drift": "drift", "not_checked": "impossible"}.get(self.outcome) == kind

    def cleared_kinds(self) -> tuple[str, ...]:
        """Return the kinds that were checked and have no finding."""
        checked = {
            "drift": bool(self.column_drifts),
            "quality": bool(self.quality_metrics),
            "impossible": bool(self.column_drifts),
        }
        return tuple(kind for kind, done in checked.items() if done and not self.findings_of(kind))

    def severity(self, kind: str) -> FindingSeverity:
        """Return the highest severity of one kind."""
        return "critical" if any(each.severity == "critical" for each in self.findings_of(kind)) else "warning"


def conclude_monitoring(
    model: str,
    version: str,
    findings: Sequence[Finding],
    *,
    compared: Sequence[ColumnDrift] = (),
    rows: Sequence[int] = (),
    measured: Sequence[QualityMetric] = (),
    notes: Sequence[str] = (),
) -> MonitoringReport:
    """Return the report over all findings.

    Raises:
        ValueError: nothing was compared, and no finding explains it. This must not pass as "no drift".
    """
    if not findings and not compared:
        raise ValueError("nothing was compared, and no finding explains it")
    outcome = _monitoring_outcome(findings)
    sentence = _outcome_sentence(outcome, version, findings, len(compared))
    if outcome == "no_drift":  # that quality is unknown must not look like a pass
        sentence = " ".join([sentence, *(note for note in notes if note.startswith(UNMEASURABLE))])
    ordered = tuple(sorted(compared, key=lambda each: (isnan(each.psi), -each.psi)))
    return MonitoringReport(
        model, version, outcome, sentence, tuple(findings), ordered, tuple(rows), tuple(measured), tuple(notes)
    )


def _monitoring_outcome(findings: Sequence[Finding]) -> MonitoringOutcome:
    kinds = {finding.kind for finding in findings}
    if "quality" in kinds:
        return "degraded"
    if "drift" in kinds:
        return "drift"
    return "not_checked" if kinds else "no_drift"


def _outcome_sentence(outcome: MonitoringOutcome, version: str, findings: Sequence[Finding], compared: int) -> str:
    if outcome == "no_drift":
        return f"No drift: none of {compared} columns differs from the reference data of version {version}."
    if outcome == "degraded":
        return next(finding.text for finding in findings if finding.kind == "quality")
    if outcome == "not_checked":
        first = next(finding for finding in findings if finding.kind == "impossible")
        others = sum(finding.kind == "impossible" for finding in findings) - 1
        return first.text + (f" {others} more checks were not possible." if others else "")
    drifted = [finding for finding in findings if finding.kind == "drift"]
    columns = list(dict.fromkeys(finding.column for finding in drifted))
    named_columns = columns[:MAX_COLUMNS_NAMED]
    named = "; ".join(finding.summary for finding in drifted if finding.column in named_columns)
    more = f"; and {others} more" if (others := len(columns) - len(named_columns)) else ""
    return f"Drift from the reference data of version {version}: {named}{more}."

"""What a whole look at a model concludes: one word, one sentence, and everything that led to it."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tasks.monitoring.rules.drift import ColumnDrift
from tasks.monitoring.rules.findings import Finding, FindingSeverity

MonitoringOutcome = Literal["Quiet", "Drift", "Degraded", "CouldNotCheck"]

FINDING_EVENTS = {
    "drift": "model.drift.detected",
    "quality": "model.quality.degraded",
    "impossible": "model.check.impossible",
}
"""The event that each kind of finding is told by."""

MAX_FINDINGS_NAMED = 3


@dataclass(frozen=True)
class QualityMetric:
    """A metric of the predictions whose labels have arrived: its interval now, and its value at promotion."""

    metric: str
    reference_value: float
    current_value: float
    lower: float
    upper: float
    rows: int
    worse: bool


@dataclass(frozen=True)
class MonitoringReport:
    """What was found.

    Attributes:
        model: the model's name.
        version: the version that serves.
        outcome: Degraded before Drift before CouldNotCheck before Quiet.
        sentence: why, in one sentence.
        findings: all of them, the most important first.
        column_drifts: the columns of the newest judged window, the furthest from the reference first.
        rows_per_window: the rows of the windows that were looked at, newest first.
        quality_metrics: the quality where labels have arrived; empty where they have not.
        notes: full sentences on what was not looked at, by choice.
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
        """Tell whether the sentence speaks of findings of this kind."""
        return {"Degraded": "quality", "Drift": "drift", "CouldNotCheck": "impossible"}.get(self.outcome) == kind

    def cleared_kinds(self) -> tuple[str, ...]:
        """Return the kinds of which nothing was found though it was looked for."""
        looked = {
            "drift": bool(self.column_drifts),
            "quality": bool(self.quality_metrics),
            "impossible": bool(self.column_drifts),
        }
        return tuple(kind for kind, done in looked.items() if done and not self.findings_of(kind))

    def severity(self, kind: str) -> FindingSeverity:
        """Return the worst severity of one kind."""
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
    min_breached_windows: int = 1,
) -> MonitoringReport:
    """Return the judgement over all findings. Nothing compared and nothing found is no silence: it is refused.

    Raises:
        ValueError: nothing was compared, and no finding says why.
    """
    if not findings and not compared:
        raise ValueError("nothing was compared, and no finding says why")
    outcome = _monitoring_outcome(findings)
    sentence = _outcome_sentence(outcome, version, findings, len(compared), len(rows), min_breached_windows)
    ordered = tuple(sorted(compared, key=lambda each: -each.psi))
    return MonitoringReport(
        model, version, outcome, sentence, tuple(findings), ordered, tuple(rows), tuple(measured), tuple(notes)
    )


def monitoring_report_json(judgement: MonitoringReport) -> str:
    """Return the judgement as JSON with sorted keys; NaN and infinity, which JSON lacks, become null."""
    return json.dumps(_json_finite(asdict(judgement)), sort_keys=True, allow_nan=False, ensure_ascii=False)


def _monitoring_outcome(findings: Sequence[Finding]) -> MonitoringOutcome:
    kinds = {finding.kind for finding in findings}
    if "quality" in kinds:
        return "Degraded"
    if "drift" in kinds:
        return "Drift"
    return "CouldNotCheck" if kinds else "Quiet"


def _outcome_sentence(
    outcome: MonitoringOutcome, version: str, findings: Sequence[Finding], compared: int, windows: int, needed: int
) -> str:
    if outcome == "Quiet":
        return f"None of {compared} columns differs from what version {version} was promoted on."
    if outcome == "Degraded":
        return next(finding.text for finding in findings if finding.kind == "quality")
    if outcome == "CouldNotCheck":
        first = next(finding for finding in findings if finding.kind == "impossible")
        others = sum(finding.kind == "impossible" for finding in findings) - 1
        return first.text + (f" {others} more could not be checked." if others else "")
    drifted = [finding for finding in findings if finding.kind == "drift"]
    named = "; ".join(finding.summary for finding in drifted[:MAX_FINDINGS_NAMED])
    more = f"; and {len(drifted) - MAX_FINDINGS_NAMED} more" if len(drifted) > MAX_FINDINGS_NAMED else ""
    where = f" ({needed} of {windows} windows count)" if windows > 1 else f" ({compared} columns compared)"
    return f"The rows differ from what version {version} was promoted on{where}: {named}{more}."


def _json_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json_finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_json_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""What a whole look at a model concludes: one word, one sentence, and everything that led to it."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tasks.monitoring.rules.drift import Compared
from tasks.monitoring.rules.findings import Finding, Severity

Outcome = Literal["Quiet", "Drift", "Degraded", "CouldNotCheck"]

EVENTS = {"drift": "model.drift.detected", "quality": "model.quality.degraded", "impossible": "model.check.impossible"}
"""The event that each kind of finding is told by."""

SHOWN = 3


@dataclass(frozen=True)
class Measured:
    """A metric of the predictions whose labels have arrived: its interval now, and its value at promotion."""

    metric: str
    before: float
    now: float
    lower: float
    upper: float
    rows: int
    worse: bool


@dataclass(frozen=True)
class Judgement:
    """What was found.

    Attributes:
        model: the model's name.
        version: the version that serves.
        outcome: Degraded before Drift before CouldNotCheck before Quiet.
        sentence: why, in one sentence.
        findings: all of them, the most important first.
        compared: the columns of the newest judged window, the furthest from the reference first.
        rows: the rows of the windows that were looked at, newest first.
        measured: the quality where labels have arrived; empty where they have not.
        notes: full sentences on what was not looked at, by choice.
    """

    model: str
    version: str
    outcome: Outcome
    sentence: str
    findings: tuple[Finding, ...]
    compared: tuple[Compared, ...] = ()
    rows: tuple[int, ...] = ()
    measured: tuple[Measured, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, kind: str) -> tuple[Finding, ...]:
        """Return the findings of one kind."""
        return tuple(finding for finding in self.findings if finding.kind == kind)

    def sentence_is_of(self, kind: str) -> bool:
        """Tell whether the sentence speaks of findings of this kind."""
        return {"Degraded": "quality", "Drift": "drift", "CouldNotCheck": "impossible"}.get(self.outcome) == kind

    def cleared(self) -> tuple[str, ...]:
        """Return the kinds of which nothing was found though it was looked for."""
        looked = {"drift": bool(self.compared), "quality": bool(self.measured), "impossible": bool(self.compared)}
        return tuple(kind for kind, done in looked.items() if done and not self.of(kind))

    def severity(self, kind: str) -> Severity:
        """Return the worst severity of one kind."""
        return "critical" if any(each.severity == "critical" for each in self.of(kind)) else "warning"


def conclude(
    model: str,
    version: str,
    findings: Sequence[Finding],
    *,
    compared: Sequence[Compared] = (),
    rows: Sequence[int] = (),
    measured: Sequence[Measured] = (),
    notes: Sequence[str] = (),
    needed: int = 1,
) -> Judgement:
    """Return the judgement over all findings. Nothing compared and nothing found is no silence: it is refused.

    Raises:
        ValueError: nothing was compared, and no finding says why.
    """
    if not findings and not compared:
        raise ValueError("nothing was compared, and no finding says why")
    outcome = _outcome(findings)
    sentence = _sentence(outcome, version, findings, len(compared), len(rows), needed)
    ordered = tuple(sorted(compared, key=lambda each: -each.effect))
    return Judgement(
        model, version, outcome, sentence, tuple(findings), ordered, tuple(rows), tuple(measured), tuple(notes)
    )


def judgement_json(judgement: Judgement) -> str:
    """Return the judgement as JSON with sorted keys; NaN and infinity, which JSON lacks, become null."""
    return json.dumps(_finite(asdict(judgement)), sort_keys=True, allow_nan=False, ensure_ascii=False)


def _outcome(findings: Sequence[Finding]) -> Outcome:
    kinds = {finding.kind for finding in findings}
    if "quality" in kinds:
        return "Degraded"
    if "drift" in kinds:
        return "Drift"
    return "CouldNotCheck" if kinds else "Quiet"


def _sentence(
    outcome: Outcome, version: str, findings: Sequence[Finding], compared: int, windows: int, needed: int
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
    named = "; ".join(finding.short for finding in drifted[:SHOWN])
    more = f"; and {len(drifted) - SHOWN} more" if len(drifted) > SHOWN else ""
    where = f" ({needed} of {windows} windows count)" if windows > 1 else f" ({compared} columns compared)"
    return f"The rows differ from what version {version} was promoted on{where}: {named}{more}."


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

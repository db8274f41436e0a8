"""Training runs: their record, their comparison, and both as text and JSON."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from tasks.shared.rules.model.namespaces import base_name, namespace_part
from tasks.shared.rules.refusal import Refusal


@dataclass(frozen=True)
class TrainingRun:
    """One training run as it was recorded; text is "" where nothing was recorded.

    Attributes:
        model: the model's name with its namespace.
        as_of: the `as_of` with which the lake returns the same rows.
        verdict: pass, hold or inconclusive.
        predictions_digest: SHA-256 over the predictions of all holdout rows.
        parameters: the hyperparameters and the seed as text; empty in a list of runs.
        runtime: versions of Python, platform and packages by name; empty in a list of runs.
    """

    id: str
    model: str
    version: str
    requested_by: str
    at: datetime | None
    status: str
    tier: str
    as_of: str
    data_digest: str
    holdout: str
    commit: str
    has_uncommitted_changes: bool
    metrics: Mapping[str, float]
    verdict: str
    predictions_digest: str
    is_deployed: bool
    url: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    runtime: Mapping[str, str] = field(default_factory=dict)


RunAspect = Literal["who", "data", "code", "parameters", "environment", "metrics"]
RUN_ASPECTS: tuple[RunAspect, ...] = ("who", "data", "code", "parameters", "environment", "metrics")
ABSENT = "-"


@dataclass(frozen=True)
class RunDifference:
    """One difference between two runs: the value in each, and for a metric which run is better."""

    part: RunAspect
    name: str
    one: str
    other: str
    better: Literal["one", "other", ""] = ""


@dataclass(frozen=True)
class RunComparison:
    """The differences of two runs, and what is the same, by part and name with its value."""

    differences: tuple[RunDifference, ...]
    same: tuple[tuple[RunAspect, str, str], ...]

    @property
    def identical(self) -> bool:
        """Whether both runs gave the same predictions for all holdout rows, bit by bit."""
        return any(name == "predictions" for part, name, _ in self.same if part == "metrics")


def compare_runs(one: TrainingRun, other: TrainingRun, higher_is_better: Callable[[str], bool]) -> RunComparison:
    """Return the differences between two runs of one model. Raises Refusal for runs of two models."""
    if base_name(one.model) != base_name(other.model):
        remedy = f"{one.id} is of {one.model}, {other.id} of {other.model}."
        raise Refusal("runs of two models cannot be compared", remedy=remedy)
    differences: list[RunDifference] = []
    same: list[tuple[RunAspect, str, str]] = []
    first, second = run_aspects(one), run_aspects(other)
    for part in RUN_ASPECTS:
        for name in dict.fromkeys((*first[part], *second[part])):
            left, right = first[part].get(name, ""), second[part].get(name, "")
            if left == right:
                same += [(part, name, left)] if left else []
            else:
                better = _better_run(one, other, name, higher_is_better) if part == "metrics" else ""
                differences.append(RunDifference(part, name, left or ABSENT, right or ABSENT, better))
    return RunComparison(tuple(differences), tuple(same))


def run_aspects(run: TrainingRun) -> Mapping[RunAspect, Mapping[str, str]]:
    """Return the compared values of a run as text, by part and name."""
    seed = {"seed": run.parameters["seed"]} if "seed" in run.parameters else {}
    parameters = {name: value for name, value in sorted(run.parameters.items()) if name != "seed"}
    return {
        "who": {"model": run.model, "requested by": run.requested_by},
        "data": {"tier": run.tier, "as of": run.as_of, "read of the lake": run.data_digest, "holdout": run.holdout},
        "code": {"commit": run.commit, "uncommitted changes": "yes" if run.has_uncommitted_changes else "no"},
        "parameters": {**parameters, **seed},
        "environment": dict(run.runtime),
        "metrics": {
            **{name: f"{value:.6g}" for name, value in sorted(run.metrics.items())},
            "verdict": run.verdict,
            "predictions": run.predictions_digest,
        },
    }


def _better_run(
    one: TrainingRun, other: TrainingRun, name: str, higher_is_better: Callable[[str], bool]
) -> Literal["one", "other", ""]:
    """Return which run has the better value of a metric; "" when they are equal or one has no finite value."""
    left, right = one.metrics.get(name, math.nan), other.metrics.get(name, math.nan)
    if not (math.isfinite(left) and math.isfinite(right)) or left == right:
        return ""
    return "one" if (left > right) == higher_is_better(name) else "other"


REQUESTER_TAG, ORDER_TAG = "ratchet.requested_by", "ratchet.order"
"""Tags of a run: who requested it as its parameters name them, and the id of the order."""
SHORT_ID_LENGTH = 8
"""How many characters of a run's or commit's id are shown. The commands accept this prefix as an id."""
_LISTING_COLUMNS = (
    "run",
    "model",
    "version",
    "requested by",
    "when (UTC)",
    "tier",
    "as of",
    "commit",
    "metrics",
    "verdict",
)


def runs_listing(runs: Sequence[TrainingRun], metrics: Sequence[str] = ()) -> str:
    """Return the runs as a table of text, a line each, with the named metrics."""
    if not runs:
        return "there is no training run yet"
    rows = [_LISTING_COLUMNS, *(_row(run, metrics) for run in runs)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_LISTING_COLUMNS))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(run: TrainingRun, metrics: Sequence[str]) -> tuple[str, ...]:
    shown = " ".join(f"{name}={run.metrics[name]:.4g}" for name in metrics if name in run.metrics)
    commit = run.commit[:SHORT_ID_LENGTH] + ("+" if run.has_uncommitted_changes else "")
    return (
        run.id[:SHORT_ID_LENGTH], run.model, run.version or "-", run.requested_by or "-",
        f"{run.at:%Y-%m-%d %H:%M}" if run.at else "-", run.tier, run.as_of[:32], commit, shown or "-",
        f"{run.verdict or run.status.lower()}{', deployed' if run.is_deployed else ''}",
    )  # fmt: skip


def run_comparison_text(one: TrainingRun, other: TrainingRun, comparison: RunComparison) -> str:
    """Return the differences, a line each, and below them a line for each part with what is the same."""
    lines = [f"{'':<30}{one.id[:SHORT_ID_LENGTH]:<28}{other.id[:SHORT_ID_LENGTH]:<28}"]
    for part in RUN_ASPECTS:
        for each in (each for each in comparison.differences if each.part == part):
            better = {"one": one, "other": other}.get(each.better)
            note = f"better: {better.id[:SHORT_ID_LENGTH]}" if better else ""
            values = f"{_short(each.name, each.one):<28}{_short(each.name, each.other):<28}"
            lines.append(f"{part + ': ' + each.name:<30}{values}{note}".rstrip())
    if not comparison.differences:
        lines.append("no differences")
    lines.append("")
    lines += [f"same {part}: {', '.join(same)}" for part in RUN_ASPECTS if (same := _same_values(comparison, part))]
    return "\n".join(lines)


def _same_values(comparison: RunComparison, part: str) -> list[str]:
    same = [(name, value) for of, name, value in comparison.same if of == part]
    if part == "environment":  # some hundred packages
        return (
            [f"{len(same)} of {len(same) + sum(each.part == part for each in comparison.differences)}"] if same else []
        )
    return [f"{name} {_short(name, value)}" for name, value in same]


def _short(name: str, value: str) -> str:
    return f"{value[:12]}…" if name in {"commit", "predictions", "read of the lake"} and len(value) > 12 else value


def run_json(run: TrainingRun) -> dict[str, Any]:
    """Return a run as plain values for JSON."""
    return {**asdict(run), "namespace": namespace_part(run.model), "at": run.at.isoformat() if run.at else None}

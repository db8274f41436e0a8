"""Runs that trained a model, as text for a terminal and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tasks.shared.rules.model.namespaces import namespace_part
from tasks.training.rules.run_history.compare import RUN_ASPECTS, RunComparison
from tasks.training.rules.run_history.facts import TrainingRun

SHORT_ID_LENGTH = 8
"""So many letters of a run's or commit's id are shown: a command takes them for the whole."""
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
    """Return a line for each run; of the metrics those that are named."""
    if not runs:
        return "no run has trained it yet"
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
        f"{run.verdict or run.status.lower()}{', serves' if run.is_deployed else ''}",
    )  # fmt: skip


def run_comparison_text(one: TrainingRun, other: TrainingRun, found: RunComparison) -> str:
    """Return what differs, a line each, and then in one line what is the same."""
    lines = [f"{'':<30}{one.id[:SHORT_ID_LENGTH]:<28}{other.id[:SHORT_ID_LENGTH]:<28}"]
    for part in RUN_ASPECTS:
        for each in (each for each in found.differences if each.part == part):
            better = {"one": one, "other": other}.get(each.better)
            note = f"better: {better.id[:SHORT_ID_LENGTH]}" if better else ""
            values = f"{_short(each.name, each.one):<28}{_short(each.name, each.other):<28}"
            lines.append(f"{part + ': ' + each.name:<30}{values}{note}".rstrip())
    if not found.differences:
        lines.append("nothing differs")
    lines.append("")
    lines += [f"same {part}: {', '.join(said)}" for part in RUN_ASPECTS if (said := _same_values(found, part))]
    return "\n".join(lines)


def _same_values(found: RunComparison, part: str) -> list[str]:
    said = [(name, value) for of, name, value in found.same if of == part]
    if part == "environment":  # some hundred packages
        return [f"{len(said)} of {len(said) + sum(each.part == part for each in found.differences)}"] if said else []
    return [f"{name} {_short(name, value)}" for name, value in said]


def _short(name: str, value: str) -> str:
    return f"{value[:12]}…" if name in {"commit", "predictions", "read of the lake"} and len(value) > 12 else value


def run_json(run: TrainingRun) -> dict[str, Any]:
    """Return a run as JSON takes it."""
    return {**asdict(run), "namespace": namespace_part(run.model), "at": run.at.isoformat() if run.at else None}

"""By what two runs of a model differ, part by part; what is the same in both is said once."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from tasks.shared.rules.model.namespaces import base_name
from tasks.shared.rules.refusal import Refusal
from tasks.training.rules.run_history.facts import TrainingRun

RunAspect = Literal["who", "data", "code", "parameters", "environment", "metrics"]
RUN_ASPECTS: tuple[RunAspect, ...] = ("who", "data", "code", "parameters", "environment", "metrics")
ABSENT = "-"


@dataclass(frozen=True)
class RunDifference:
    """One thing that differs: its value in each run, and for a metric which of the two is better."""

    part: RunAspect
    name: str
    one: str
    other: str
    better: Literal["one", "other", ""] = ""


@dataclass(frozen=True)
class RunComparison:
    """What differs, and what is the same: by part and name, with its value."""

    differences: tuple[RunDifference, ...]
    same: tuple[tuple[RunAspect, str, str], ...]

    @property
    def identical(self) -> bool:
        """Whether both runs predict every row of the holdout alike, bit by bit."""
        return any(name == "predictions" for part, name, _ in self.same if part == "metrics")


def compare_runs(one: TrainingRun, other: TrainingRun, higher_is_better: Callable[[str], bool]) -> RunComparison:
    """Return by what two runs differ.

    Raises:
        Refusal: they are runs of two models.
    """
    if base_name(one.model) != base_name(other.model):
        remedy = f"{one.id} is of {one.model}, {other.id} of {other.model}."
        raise Refusal("two models have nothing to be compared by", remedy=remedy)
    differs: list[RunDifference] = []
    same: list[tuple[RunAspect, str, str]] = []
    first, second = run_aspects(one), run_aspects(other)
    for part in RUN_ASPECTS:
        for name in dict.fromkeys((*first[part], *second[part])):
            left, right = first[part].get(name, ""), second[part].get(name, "")
            if left == right:
                same += [(part, name, left)] if left else []
            else:
                better = _better_run(one, other, name, higher_is_better) if part == "metrics" else ""
                differs.append(RunDifference(part, name, left or ABSENT, right or ABSENT, better))
    return RunComparison(tuple(differs), tuple(same))


def run_aspects(run: TrainingRun) -> Mapping[RunAspect, Mapping[str, str]]:
    """Return what is compared of a run, by part and name, as text."""
    seed = {"seed": run.parameters["seed"]} if "seed" in run.parameters else {}
    given = {name: value for name, value in sorted(run.parameters.items()) if name != "seed"}
    return {
        "who": {"model": run.model, "requested by": run.requested_by},
        "data": {"tier": run.tier, "as of": run.as_of, "read of the lake": run.data_digest, "holdout": run.holdout},
        "code": {"commit": run.commit, "uncommitted changes": "yes" if run.has_uncommitted_changes else "no"},
        "parameters": {**given, **seed},
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
    """Return which run has the better value of a metric; "" where one has none, or it is no metric."""
    left, right = one.metrics.get(name, math.nan), other.metrics.get(name, math.nan)
    if not (math.isfinite(left) and math.isfinite(right)) or left == right:
        return ""
    return "one" if (left > right) == higher_is_better(name) else "other"

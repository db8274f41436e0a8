"""By what two runs of a model differ, part by part; what is the same in both is said once."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from tasks.shared.rules.model.namespaces import base_of
from tasks.shared.rules.refusal import Refusal
from tasks.training.rules.run_history.facts import TrainedRun

Part = Literal["who", "data", "code", "parameters", "environment", "metrics"]
PARTS: tuple[Part, ...] = ("who", "data", "code", "parameters", "environment", "metrics")
ABSENT = "-"


@dataclass(frozen=True)
class Difference:
    """One thing that differs: its value in each run, and for a metric which of the two is better."""

    part: Part
    name: str
    one: str
    other: str
    better: Literal["one", "other", ""] = ""


@dataclass(frozen=True)
class Comparison:
    """What differs, and what is the same: by part and name, with its value."""

    differs: tuple[Difference, ...]
    same: tuple[tuple[Part, str, str], ...]

    @property
    def identical(self) -> bool:
        """Whether both runs predict every row of the holdout alike, bit by bit."""
        return any(name == "predictions" for part, name, _ in self.same if part == "metrics")


def compare(one: TrainedRun, other: TrainedRun, higher_is_better: Callable[[str], bool]) -> Comparison:
    """Return by what two runs differ.

    Raises:
        Refusal: they are runs of two models.
    """
    if base_of(one.model) != base_of(other.model):
        remedy = f"{one.id} is of {one.model}, {other.id} of {other.model}."
        raise Refusal("two models have nothing to be compared by", remedy=remedy)
    differs: list[Difference] = []
    same: list[tuple[Part, str, str]] = []
    first, second = facts(one), facts(other)
    for part in PARTS:
        for name in dict.fromkeys((*first[part], *second[part])):
            left, right = first[part].get(name, ""), second[part].get(name, "")
            if left == right:
                same += [(part, name, left)] if left else []
            else:
                better = _better(one, other, name, higher_is_better) if part == "metrics" else ""
                differs.append(Difference(part, name, left or ABSENT, right or ABSENT, better))
    return Comparison(tuple(differs), tuple(same))


def facts(run: TrainedRun) -> Mapping[Part, Mapping[str, str]]:
    """Return what is compared of a run, by part and name, as text."""
    seed = {"seed": run.parameters["seed"]} if "seed" in run.parameters else {}
    given = {name: value for name, value in sorted(run.parameters.items()) if name != "seed"}
    return {
        "who": {"model": run.model, "requested by": run.requested_by},
        "data": {"tier": run.tier, "as of": run.as_of, "read of the lake": run.data_digest, "holdout": run.holdout},
        "code": {"commit": run.commit, "uncommitted changes": "yes" if run.patch else "no"},
        "parameters": {**given, **seed},
        "environment": dict(run.environment),
        "metrics": {
            **{name: f"{value:.6g}" for name, value in sorted(run.metrics.items())},
            "verdict": run.verdict,
            "predictions": run.predictions,
        },
    }


def _better(
    one: TrainedRun, other: TrainedRun, name: str, higher_is_better: Callable[[str], bool]
) -> Literal["one", "other", ""]:
    """Return which run has the better value of a metric; "" where one has none, or it is no metric."""
    left, right = one.metrics.get(name, math.nan), other.metrics.get(name, math.nan)
    if not (math.isfinite(left) and math.isfinite(right)) or left == right:
        return ""
    return "one" if (left > right) == higher_is_better(name) else "other"

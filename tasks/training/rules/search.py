"""What a trial of an experiment tries: one value for each parameter of `search` in `model.yaml`."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from tasks.shared.rules.model.parts import SearchRange, SearchSpace
from tasks.shared.rules.refusal import Refusal

ParameterValue = int | float | str | bool


class TrialLike(Protocol):
    """What is used of an Optuna trial."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Return a whole number from low to high."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number from low to high."""

    def suggest_categorical(self, name: str, choices: Sequence[ParameterValue]) -> ParameterValue:
        """Return one of the choices."""


def suggest_parameters(trial: TrialLike, space: Mapping[str, SearchSpace]) -> dict[str, ParameterValue]:
    """Return a value for each parameter; whole numbers where both ends of a range are whole.

    Parameters are asked for by name order, so that the same seed gives the same trials however the file is ordered.

    Raises:
        Refusal: there is nothing to try.
    """
    if not space:
        remedy = "Add parameters under `search` in model.yaml."
        raise Refusal("there is nothing to try, every trial would be the same", where="search", remedy=remedy)
    return {name: _suggest_value(trial, name, space[name]) for name in sorted(space)}


def _suggest_value(trial: TrialLike, name: str, space: SearchSpace) -> ParameterValue:
    if not isinstance(space, SearchRange):
        return trial.suggest_categorical(name, space.choices)
    if isinstance(space.low, int) and isinstance(space.high, int):
        return int(trial.suggest_int(name, space.low, space.high, log=space.log))
    return float(trial.suggest_float(name, space.low, space.high, log=space.log))

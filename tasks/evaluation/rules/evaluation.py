"""The evaluation of a challenger on the frozen holdout: metrics, slices, comparison, curves and verdict."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.evaluation.rules.comparison import ModelComparison, compare_models, too_few_rows
from tasks.evaluation.rules.curves import Curve, compute_curves
from tasks.evaluation.rules.gate import Verdict, apply_gate
from tasks.evaluation.rules.leaks import LeakSearch, perfect_metrics
from tasks.evaluation.rules.metrics import METRICS, SliceResult, compute_metrics, measure_slices, undefined_reason
from tasks.evaluation.rules.predictions import (
    EncodedTruth,
    FloatArray,
    Labels,
    TaskType,
    check_predictions,
    encode_truth,
)
from tasks.evaluation.rules.spending import SpentLevel
from tasks.shared.rules.model.parts import EvaluationSpec
from tasks.shared.rules.refusal import Refusal


@dataclass(frozen=True)
class DeclaredBound:
    """A bound declared in model.yaml: over all rows, or over the rows of each value of `column`."""

    metric: str
    at_least: float | None
    at_most: float | None
    column: str | None
    minimum_rows: int


@dataclass(frozen=True)
class Leak:
    """How many entities, groups or rows the holdout shares with training although it may not, in `words`."""

    count: int
    words: str = "entities of the holdout were seen in training"


@dataclass(frozen=True)
class Comparable:
    """The holdout rows that the champion was not trained on: those newer than `since`, as a mask of shape (rows,)."""

    rows: npt.NDArray[np.bool_]
    since: str

    def suffices(self, spec: EvaluationSpec) -> bool:
        """Return whether these are enough rows for a comparison."""
        return int(self.rows.sum()) >= max(1, spec.minimum_rows)


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation on the holdout.

    Attributes:
        classes: the labels, in the order of the predictions' columns.
        metrics: the challenger's metrics by name; NaN where the rows do not define one.
        champion_metrics: the champion's on the rows that are compared; None without a champion.
        champion_version: the champion's version; empty without a champion.
        bounds: the floors and slices that were declared.
        slices: the results by slice.
        comparison: challenger against champion; None without a champion.
        leaked: entities, groups or rows of the holdout that training may not share, as `leaked_words` says.
        compared_since: challenger and champion are compared on rows newer than this; "" on all rows.
        curves: of challenger and champion.
        leak_search: the signs of a leak, those of the metrics included.
        verdict: the decision of the gate.
        spent_level: what the comparison spent of the error budget; None when it spent nothing.
    """

    task: TaskType
    classes: tuple[str, ...]
    rows: int
    metrics: dict[str, float]
    champion_metrics: dict[str, float] | None
    champion_version: str
    bounds: tuple[DeclaredBound, ...]
    slices: tuple[SliceResult, ...]
    comparison: ModelComparison | None
    leaked: int
    curves: tuple[Curve, ...]
    verdict: Verdict
    leak_search: LeakSearch
    spent_level: SpentLevel | None = None
    leaked_words: str = Leak.words
    compared_since: str = ""


def evaluate_predictions(
    *,
    task_type: TaskType,
    classes: Sequence[str],
    spec: EvaluationSpec,
    truth: Labels,
    slice_columns: pd.DataFrame,
    challenger: npt.NDArray[Any],
    champion: npt.NDArray[Any] | None,
    champion_version: str,
    leak: Leak,
    leak_search: LeakSearch,
    seed: int,
    spent_level: SpentLevel | None = None,
    training_rows: int = 0,
    comparable: Comparable | None = None,
) -> Evaluation:
    """Compute the challenger's metrics, compare it with the champion, and apply the gate.

    Args:
        classes: labels in the order of the predictions' columns; empty for a regression.
        spec: floors, slices and comparison.
        truth: (rows,) labels or numbers of the holdout.
        slice_columns: the columns that `spec.slices` names, in the order of the rows of `truth`.
        champion: the champion's predictions of the same rows; None when there is none.
        champion_version: the champion's version; empty when there is none.
        leak: what the holdout shares with training.
        leak_search: what `search_leaks` found in the rows.
        seed: of the bootstrap.
        spent_level: the level of the comparison, from the error budget; None compares at the confidence of `spec`.
        training_rows: the rows that the challenger was trained on; a comparison with an error budget needs them.
        comparable: the rows on which the models are compared; None for all.

    Raises:
        Refusal: truth, predictions or slice columns are invalid, or only one of champion and version is given.
    """
    if (champion is None) != (champion_version == ""):
        problem = "only one of champion and champion_version is given"
        remedy = "Give both the champion's predictions and its version, or neither."
        raise Refusal(problem, where="champion_version", value=champion_version, remedy=remedy)
    codes = encode_truth(task_type, classes, truth)
    predictions = {"challenger": check_predictions(task_type, classes, len(codes), challenger, "challenger")}
    if champion is not None:
        predictions["champion"] = check_predictions(task_type, classes, len(codes), champion, "champion")
    kept = comparable.rows if comparable else np.ones(len(codes), dtype=bool)
    measured = {"challenger": (codes, predictions["challenger"])}
    enough = comparable is None or comparable.suffices(spec)
    if champion is not None and enough:
        measured["champion"] = (codes[kept], predictions["champion"][kept])
    metrics = {name: compute_metrics(task_type, *values) for name, values in measured.items()}
    slices = tuple(measure_slices(task_type, spec.slices, codes, slice_columns, predictions["challenger"]))
    comparison = None
    terms = spec.comparison
    if champion is not None and comparable and not enough:
        comparison = too_few_rows(
            terms.metric, int(kept.sum()), least=spec.minimum_rows, since=comparable.since, champion=champion_version,
            confidence=terms.confidence, level=(1 - terms.confidence) / 2, margin=terms.margin, rule=terms.rule,
        )  # fmt: skip
    elif champion is not None:
        comparison = compare_models(
            task_type,
            classes,
            terms.metric,
            pd.Series(truth).reset_index(drop=True)[kept],
            champion=predictions["champion"][kept],
            challenger=predictions["challenger"][kept],
            confidence=terms.confidence,
            margin=terms.margin,
            rule=terms.rule,
            level=spent_level.level if spent_level else None,
            training_rows=max(1, training_rows) if spent_level and spent_level.budget else math.inf,
            seed=seed,
        )
        if spent_level:
            comparison = replace(comparison, sentence=f"{comparison.sentence} {spent_level.sentence}")
    perfect = tuple(perfect_metrics(task_type, codes, metrics["challenger"]))
    leak_search = replace(leak_search, findings=(*leak_search.findings, *perfect))
    verdict = apply_gate(
        spec,
        rows=len(codes),
        metrics=metrics["challenger"],
        slices=slices,
        comparison=comparison,
        first_model=champion is None,
        leaked=leak.count,
        leaked_words=leak.words,
        signs_of_leak=leak_search.findings,
        undefined=_undefined_reasons(task_type, codes, predictions["challenger"]),
    )
    return Evaluation(
        task=task_type,
        classes=tuple(classes),
        rows=len(codes),
        metrics=metrics["challenger"],
        champion_metrics=metrics.get("champion", {}) if champion is not None else None,
        champion_version=champion_version,
        bounds=tuple(_bounds(spec)),
        slices=slices,
        comparison=comparison,
        leaked=leak.count,
        curves=tuple(c for name, values in measured.items() for c in compute_curves(task_type, *values, name)),
        verdict=verdict,
        spent_level=spent_level,
        leaked_words=leak.words,
        compared_since=comparable.since if comparable else "",
        leak_search=leak_search,
    )


def _undefined_reasons(task: TaskType, codes: EncodedTruth, predictions: FloatArray) -> dict[str, str]:
    """Return why the rows do not define a metric, by metric; empty text for one that they define."""
    classes = predictions.shape[-1]
    return {metric: undefined_reason(task, metric, codes, classes=classes) for metric in METRICS[task]}


def _bounds(spec: EvaluationSpec) -> Iterator[DeclaredBound]:
    """Yield the declared bounds as plain records."""
    for floor in spec.floors:
        yield DeclaredBound(floor.metric, floor.at_least, floor.at_most, None, spec.minimum_rows)
    for part in spec.slices:
        yield DeclaredBound(part.metric, part.at_least, part.at_most, part.column, part.minimum_rows)


def count_leaked(training_keys: Any, holdout_keys: Any) -> int:
    """Return how many entities of the holdout occur in the training rows, too.

    Args:
        training_keys: (rows,) entity keys of the training rows, integers or text, repeats allowed.
        holdout_keys: (rows,) entity keys of the holdout rows.

    Raises:
        Refusal: there are no keys, null keys, or keys that are neither integers nor text.
    """
    return len(_keys_as_text(training_keys, "training keys") & _keys_as_text(holdout_keys, "holdout keys"))


def _keys_as_text(keys: Any, where: str) -> set[str]:
    """Return the different keys as text: integers as decimal digits, text as it is."""
    unique = pd.Series(keys).drop_duplicates()
    if unique.empty:
        raise Refusal("there are no keys", where=where, remedy="Without keys a leak cannot be excluded.")
    invalid = [key for key in unique if not isinstance(key, (str, int, np.integer)) or isinstance(key, bool)]
    if invalid:
        remedy = "Keys are integers or text: read the column without nulls and without decimals."
        raise Refusal("a key is neither an integer nor text", where=where, value=invalid[0], remedy=remedy)
    return {str(key) for key in unique}


def record_json(record: Any) -> str:
    """Return a dataclass as JSON with sorted keys; NaN and infinity, which JSON lacks, become null."""
    return json.dumps(_json_finite(asdict(record)), sort_keys=True, allow_nan=False, ensure_ascii=False)


def _json_finite(value: Any) -> Any:
    """Return the value with None for every number that is not finite, at any depth."""
    if isinstance(value, dict):
        return {key: _json_finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def finite_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """Return the metrics that are finite numbers. The verdict names the others."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}

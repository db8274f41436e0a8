"""Checks on labels that have arrived: quality metrics compared with those at promotion, and label shift."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from tasks.evaluation.rules.intervals import (
    MIN_DIFFERING_ROWS,
    RANK_METRICS,
    auc_influence,
    average_precision_influence,
)
from tasks.evaluation.rules.metrics import compute_metric, higher_is_better
from tasks.evaluation.rules.predictions import EncodedTruth, FloatArray, TaskType
from tasks.monitoring.rules.bins import number_column
from tasks.monitoring.rules.effects import homogeneity_p_value, stability_index
from tasks.monitoring.rules.findings import Finding, MonitoringRules
from tasks.monitoring.rules.labels import LabelPairs, PairState
from tasks.shared.rules.model.parts import EvaluationSpec
from tasks.shared.rules.model.spec import ModelSpec

QUALITY_CONFIDENCE = 0.99
"""The confidence of the two-sided intervals."""
QUALITY_RESAMPLES = 200
UNMEASURABLE = "Quality cannot be measured"
"""The beginning of a note that says why."""
_MAX_RESAMPLED_ROWS = 20_000


@dataclass(frozen=True)
class QualityMetric:
    """A quality metric on labels that have arrived: its present interval, and its value at promotion."""

    metric: str
    reference_value: float
    current_value: float
    lower: float
    upper: float
    rows: int
    worse: bool


def check_quality(
    spec: EvaluationSpec,
    task: TaskType,
    before: tuple[EncodedTruth, FloatArray],
    now: tuple[EncodedTruth, FloatArray],
) -> tuple[list[QualityMetric], list[Finding]]:
    """Return the metrics with their intervals, and a finding for each metric that is worse than allowed.

    A metric is worse when it decreased significantly and by more than `comparison.margin`, or when its whole interval
    violates a floor.

    Args:
        spec: the metrics, margin and floors. The caller has checked that there are enough rows.
        before: encoded truth and checked predictions of the holdout at promotion.
        now: the same for the labels that have arrived.
    """
    names = dict.fromkeys((spec.comparison.metric, *(floor.metric for floor in spec.floors)))
    z = NormalDist().inv_cdf((1 + QUALITY_CONFIDENCE) / 2)
    measured, findings = [], []
    for metric in names:
        (reference_value, reference_error), (current_value, error) = (
            _metric_with_error(task, metric, *rows) for rows in (before, now)
        )
        lower, upper = current_value - z * error, current_value + z * error
        sign = 1 if higher_is_better(metric) else -1
        decrease = sign * (reference_value - current_value)
        decrease_lower_bound = decrease - z * sqrt(error**2 + reference_error**2)
        margin = spec.comparison.margin if metric == spec.comparison.metric else float("inf")
        broken = _broken_floor(spec, metric, lower, upper)
        worse = (decrease > margin and decrease_lower_bound > 0) or bool(broken)
        measured.append(QualityMetric(metric, reference_value, current_value, lower, upper, len(now[0]), worse))
        if worse:
            text = (
                f"On {len(now[0]):,} rows with labels that have arrived, {metric} is {current_value:.4f} "
                f"[{lower:.4f}, {upper:.4f}]; it was {reference_value:.4f} at promotion{broken}."
            )
            summary = f"{metric} {current_value:.4f}"
            findings.append(Finding("quality", "quality", metric, text, decrease, "critical", summary))
    return measured, findings


def too_few_labels_reason(task: TaskType, codes: EncodedTruth, minimum_rows: int, classes: int = 2) -> str:
    """Return why there are too few labelled rows, or "". A class without rows counts, too."""
    if len(codes) < minimum_rows:
        return f"{len(codes):,} rows have labels that arrived later, fewer than the {minimum_rows:,} of minimum_rows"
    if task != "regression" and (smallest := int(np.bincount(codes, minlength=classes).min())) < MIN_DIFFERING_ROWS:
        return f"a class has {smallest} labelled rows, fewer than {MIN_DIFFERING_ROWS}"
    return ""


def unidentified_rows_note(spec: ModelSpec, pairs: LabelPairs) -> str:
    """Return how many logged predictions no label can be paired with, and why; "" when there are none."""
    entity, time, hidden = spec.data.entity, spec.data.time, spec.inference_log.exclude
    why: dict[PairState, str] = {
        "without entity": _absent(entity, hidden),
        "without time": f"{_absent(time or '', hidden)}, and {entity} alone does not identify a row",
        "ambiguous": f"several rows have their {entity}" + (f" and {time}" if time else ""),
    }
    counted = [f"{pairs.counts[state]:,} because {text}" for state, text in why.items() if state in pairs.counts]
    if not counted:
        return ""
    of_all = f"{pairs.unidentified:,} of {pairs.unidentified + pairs.identified:,} logged predictions"
    return f"no label can be paired with {of_all}: {'; '.join(counted)}"


def unmeasurable_reason(spec: ModelSpec, pairs: LabelPairs) -> str:
    """Return why quality cannot be measured at all: nothing identifies the row of any prediction; else ""."""
    return "" if pairs.identified else unidentified_rows_note(spec, pairs)


def _absent(column: str, hidden: Collection[str]) -> str:
    return f"{column} is excluded from the log" if column in hidden else f"they carry no {column}"


def _broken_floor(spec: EvaluationSpec, metric: str, lower: float, upper: float) -> str:
    for floor in spec.floors:
        if floor.metric == metric:
            if floor.at_least is not None and upper < floor.at_least:
                return f", and its floor is {floor.at_least:g}"
            if floor.at_most is not None and lower > floor.at_most:
                return f", and its limit is {floor.at_most:g}"
    return ""


def _metric_with_error(
    task: TaskType, metric: str, codes: EncodedTruth, predictions: FloatArray
) -> tuple[float, float]:
    """Return a metric and its standard error, from the rows' influence or by resampling."""
    if metric in RANK_METRICS and task == "binary":
        influence = auc_influence if metric == "auc" else average_precision_influence
        value, each = influence(codes == 1, predictions[:, 1])
        return value, float(np.sqrt((each**2).sum()) / len(codes))
    value = compute_metric(task, metric, codes, predictions)
    generator = np.random.default_rng(0)
    sample_size = min(len(codes), _MAX_RESAMPLED_ROWS)
    samples = (generator.integers(0, len(codes), sample_size) for _ in range(QUALITY_RESAMPLES))
    values = [compute_metric(task, metric, codes[rows], predictions[rows]) for rows in samples]
    return value, _deviation(values) * sqrt(sample_size / len(codes))


def _deviation(values: Sequence[float]) -> float:
    """Return the standard deviation over the resamples with a finite metric; infinite when fewer than half have one."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.std(known, ddof=1)) if len(known) > QUALITY_RESAMPLES // 2 else float("inf")


_CRITICAL_FACTOR = 4
"""A change of this many times the threshold is critical."""


def check_class_shares(
    target: str,
    classes: Sequence[str],
    reference_counts: Sequence[int],
    current_counts: Sequence[int],
    rules: MonitoringRules,
) -> list[Finding]:
    """Return a finding when the share of a class differs significantly and by enough.

    Args:
        target: the label column.
        classes: the classes in order. Of equal changes the last class is reported: the positive one of two.
        reference_counts: rows by class of the reference data.
        current_counts: rows by class of the labels that have arrived. The caller has checked that they are enough.
        rules: the significance level and the smallest change.
    """
    if (
        not sum(reference_counts)
        or not sum(current_counts)
        or homogeneity_p_value(reference_counts, current_counts) > rules.label_significance_level
    ):
        return []
    shares = [np.asarray(counts, dtype=np.float64) / sum(counts) for counts in (reference_counts, current_counts)]
    changes = np.abs(shares[1] - shares[0]).round(12)
    largest = len(changes) - 1 - int(np.argmax(changes[::-1]))
    if (change := float(changes[largest])) < rules.min_label_change:
        return []
    before, now = (f"{float(share[largest]):.1%}" for share in shares)
    text = (
        f"Of {sum(current_counts):,} labels that have arrived, {now} have {target} = {classes[largest]}; "
        f"in the reference data it was {before}."
    )
    return [
        _label_finding(
            target, change, text, f"labels of {target} ({classes[largest]} {before} → {now})", rules.min_label_change
        )
    ]


def check_label_values(
    target: str, before: npt.NDArray[np.float64], now: npt.NDArray[np.float64], rules: MonitoringRules
) -> list[Finding]:
    """Return a finding when the labels of a regression have another distribution.

    Args:
        target: the label column.
        before: the labels of the holdout at promotion.
        now: the labels that have arrived. The caller has checked that they are enough.
        rules: the significance level and the threshold of the index.
    """
    if not len(before) or not len(now):
        return []
    column = number_column(target, before)
    counts = [np.bincount(column.bins_of(values), minlength=column.bins).tolist() for values in (before, now)]
    effect = stability_index(*counts)
    if homogeneity_p_value(*counts) > rules.label_significance_level or effect < rules.psi_threshold:
        return []
    change = f"mean {before.mean():.4g} → {now.mean():.4g}"
    text = (
        f"The {len(now):,} labels of {target} that have arrived differ from the holdout at promotion: {change} "
        f"(population stability index {effect:.2f}, threshold {rules.psi_threshold:g})."
    )
    return [
        _label_finding(target, effect, text, f"labels of {target} ({change}, PSI {effect:.2f})", rules.psi_threshold)
    ]


def _label_finding(target: str, effect: float, text: str, short: str, least: float) -> Finding:
    return Finding(
        "drift", "labels", target, text, effect, "critical" if effect >= _CRITICAL_FACTOR * least else "warning", short
    )

"""Checks on labels that have arrived: quality metrics compared with those at promotion, and label shift."""

from collections.abc import Sequence
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
from tasks.monitoring.rules.columns import number_column
from tasks.monitoring.rules.effects import homogeneity_p_value, stability_index
from tasks.monitoring.rules.findings import Finding, MonitoringRules
from tasks.monitoring.rules.requests import REQUESTED_AT_COLUMN, logged_prediction_columns
from tasks.shared.rules import sql
from tasks.shared.rules.model.parts import EvaluationSpec
from tasks.shared.rules.model.spec import ModelSpec

QUALITY_CONFIDENCE = 0.99
"""The confidence of the two-sided intervals."""
QUALITY_RESAMPLES = 200
_MAX_RESAMPLED_ROWS = 20_000
TRUTH_COLUMN = "_truth"


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


def labelled_predictions_sql(spec: ModelSpec, requests: str) -> str:
    """Return the query of predictions whose labels arrived later: one row per entity, with its newest prediction.

    Entities that the version was trained or evaluated on are left out. When entities have a row for each time, the
    label is the first one with a time after the prediction.

    Args:
        requests: the requests as a table in SQL. The query also reads the tables `labels` (the present rows of the
            main table) and `seen` (the rows of the version's tier).
    """
    at, target = sql.quoted_name(REQUESTED_AT_COLUMN), sql.quoted_name(spec.data.target)
    key = sql.key_text_sql(spec.data.entity)
    names = [sql.quoted_name(name) for name in logged_prediction_columns(spec)]
    newest_predictions_sql = ", ".join(f"max_by({name}, {at}) AS {name}" for name in names)
    present = f"WHERE {sql.quoted_name(spec.data.entity)} IS NOT NULL"
    newest = sql.select_sql(
        f"{key} AS entity_key, max({at}) AS said_at, {newest_predictions_sql}", requests, present, "GROUP BY 1"
    )
    time = sql.quoted_name(spec.data.time) if spec.data.time else ""
    asked_at = f", CAST({time} AS TIMESTAMPTZ) AS asked_at" if time else ""
    known = f"WHERE {target} IS NOT NULL"
    labels = sql.select_sql(f"{key} AS entity_key, {target} AS truth{asked_at}", "labels", known)
    # An entity with a row for each time may get new labels after it was seen in training.
    seen = "" if time else f"WHERE said.entity_key NOT IN ({sql.select_sql(key, 'seen')})"
    truth, later = ("min_by(truth, asked_at)", " AND asked_at >= said_at") if time else ("max(truth)", "")
    chosen = ", ".join(f"max({name}) AS {name}" for name in names)
    joined = f"({newest}) AS said JOIN ({labels}) AS known ON said.entity_key = known.entity_key{later}"
    return sql.select_sql(f"{chosen}, {truth} AS {TRUTH_COLUMN}", joined, seen, "GROUP BY said.entity_key")


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
    counts = [
        np.bincount(np.searchsorted(column.edges, values, side="right"), minlength=column.bins).tolist()
        for values in (before, now)
    ]
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

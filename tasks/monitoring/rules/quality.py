"""Is the model still as good as when it was promoted? By the gate's metrics, on rows whose labels have arrived."""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

import numpy as np

from tasks.evaluation.rules.intervals import (
    MIN_DIFFERING_ROWS,
    RANK_METRICS,
    auc_influence,
    average_precision_influence,
)
from tasks.evaluation.rules.metrics import compute_metric, higher_is_better
from tasks.evaluation.rules.predictions import EncodedTruth, FloatArray, TaskType
from tasks.monitoring.rules.findings import Finding
from tasks.monitoring.rules.judgement import QualityMetric
from tasks.monitoring.rules.requests import REQUESTED_AT_COLUMN, logged_prediction_columns
from tasks.shared.rules import sql
from tasks.shared.rules.model.spec import EvaluationSpec, ModelSpec

QUALITY_RESAMPLES = 200
_MAX_RESAMPLED_ROWS = 20_000
TRUTH_COLUMN = "_truth"


def labelled_predictions_sql(spec: ModelSpec, requests: str) -> str:
    """Return the query of predictions with labels that arrived later: a row an entity, its newest prediction.

    Labels of entities that the version was trained or judged on are left out: it has seen them. Of a model whose
    entities have a row for each time, the label is the first that was asked for after the prediction.

    Args:
        spec: the model.
        requests: the requests as a table in SQL; `labels` are the rows of the main table of today, `seen` those
            of the version's tier.
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
    # An entity that has a row for each time may be asked about again; its later labels are news.
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
    *,
    confidence: float = 0.99,
    seed: int = 0,
) -> tuple[list[QualityMetric], list[Finding]]:
    """Return the metrics that decide with their intervals, and a finding for each that is worse than it may be.

    A metric is worse when it is so by more than `comparison.margin` beyond chance, or when its whole interval
    breaks a floor.

    Args:
        spec: which metrics decide, and by how much; rows enough for a judgement have been looked for.
        task: the kind of task.
        before: encoded truth and checked predictions of the holdout at promotion.
        now: the same of the rows whose labels have arrived.
        confidence: of the two-sided intervals.
        seed: of the resampling.
    """
    names = dict.fromkeys((spec.comparison.metric, *(floor.metric for floor in spec.floors)))
    reach = NormalDist().inv_cdf((1 + confidence) / 2)
    measured, findings = [], []
    for metric in names:
        (reference_value, then_error), (found, error) = (
            _metric_with_error(task, metric, *rows, seed=seed) for rows in (before, now)
        )
        lower, upper = found - reach * error, found + reach * error
        sign = 1 if higher_is_better(metric) else -1
        decrease = sign * (reference_value - found)
        decrease_lower_bound = decrease - reach * sqrt(error**2 + then_error**2)
        margin = spec.comparison.margin if metric == spec.comparison.metric else float("inf")
        broken = _broken_floor(spec, metric, lower, upper)
        worse = (decrease > margin and decrease_lower_bound > 0) or bool(broken)
        measured.append(QualityMetric(metric, reference_value, found, lower, upper, len(now[0]), worse))
        if worse:
            text = (
                f"On {len(now[0]):,} rows whose labels have arrived {metric} is {found:.4f} "
                f"[{lower:.4f}, {upper:.4f}], where it was {reference_value:.4f} at promotion{broken}."
            )
            findings.append(Finding("quality", "quality", metric, text, decrease, "critical", f"{metric} {found:.4f}"))
    return measured, findings


def too_few_labels_reason(task: TaskType, codes: EncodedTruth, least: int, classes: int = 2) -> str:
    """Return why labelled rows are too few to judge by, or nothing; a class of which none is there counts as well."""
    if len(codes) < least:
        return f"{len(codes):,} rows have labels that arrived later, fewer than the {least:,} of minimum_rows"
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
    task: TaskType, metric: str, codes: EncodedTruth, predictions: FloatArray, *, seed: int
) -> tuple[float, float]:
    """Return a metric and its standard error: by the rows' influence, or resampled."""
    if metric in RANK_METRICS and task == "binary":
        influence = auc_influence if metric == "auc" else average_precision_influence
        value, each = influence(codes == 1, predictions[:, 1])
        return value, float(np.sqrt((each**2).sum()) / len(codes))
    value = compute_metric(task, metric, codes, predictions)
    generator = np.random.default_rng(seed)
    taken = min(len(codes), _MAX_RESAMPLED_ROWS)
    drawn = (generator.integers(0, len(codes), taken) for _ in range(QUALITY_RESAMPLES))
    values = [compute_metric(task, metric, codes[rows], predictions[rows]) for rows in drawn]
    return value, _deviation(values) * sqrt(taken / len(codes))


def _deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of the resamples that define the metric; infinite when few do."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.std(known, ddof=1)) if len(known) > QUALITY_RESAMPLES // 2 else float("inf")

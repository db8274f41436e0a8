"""Quality monitoring: labels that have arrived, and their predictions, compared with the reference data."""

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from blocks.common.errors import NotFound
from blocks.environment import Environment
from blocks.lake.base import AsOf
from tasks.evaluation.rules.predictions import EncodedTruth, FloatArray, check_predictions, encode_truth
from tasks.monitoring.current import CurrentData
from tasks.monitoring.reference import ReferenceData
from tasks.monitoring.rules.findings import Finding, MonitoringRules
from tasks.monitoring.rules.labels import TRUTH_COLUMN, LabelPairs, label_pairs_sql, read_label_pairs
from tasks.monitoring.rules.quality import (
    UNMEASURABLE,
    QualityMetric,
    check_class_shares,
    check_label_values,
    check_quality,
    too_few_labels_reason,
    unidentified_rows_note,
    unmeasurable_reason,
)
from tasks.monitoring.rules.requests import TimeSpan, logged_prediction_columns, version_requests_sql
from tasks.shared.models import TeamModel
from tasks.shared.rules import sql
from tasks.shared.rules.model.spec import ModelSpec

LABEL_LOOKBACK = timedelta(days=90)
"""How far back predictions are joined with labels that have arrived since."""

QualityResult = tuple[list[QualityMetric], list[Finding], list[str]]


def measure_label_quality(
    env: Environment,
    model: TeamModel,
    reference: ReferenceData,
    current: CurrentData,
    window_end: datetime,
    rules: MonitoringRules,
) -> QualityResult:
    """Return the quality metrics with intervals, the findings, and notes on what was not measured."""
    spec = model.spec
    try:
        labels = env.lake().as_of(spec.data.dataset)
    except NotFound:
        return [], [], ["Quality is not measured: there are no labels."]
    pairs = pair_labels(env, spec, reference, current, labels, window_end)
    if why := unmeasurable_reason(spec, pairs):
        return [], [], [f"{UNMEASURABLE}: {why}."]
    labelled_predictions, unpaired = pairs.rows, unidentified_rows_note(spec, pairs)
    shifted = check_label_shift(env, spec, reference, labelled_predictions, rules)
    notes = [f"Quality is measured without some rows: {unpaired}."] if unpaired else []
    truth, predictions = (
        _truth_and_predictions(spec, labelled_predictions, TRUTH_COLUMN)
        if len(labelled_predictions)
        else (np.empty(0, np.int64), np.empty(0))
    )
    if why := too_few_labels_reason(spec.task, truth, spec.evaluation.minimum_rows, len(spec.data.classes)):
        return [], shifted, [f"Quality is not measured: {why}.", *notes]
    before = _truth_and_predictions(spec, pq.read_table(reference.holdout), spec.data.target)
    measured, degraded_findings = check_quality(spec.evaluation, spec.task, before, (truth, predictions))
    return measured, [*degraded_findings, *shifted], notes


def pair_labels(
    env: Environment,
    spec: ModelSpec,
    reference: ReferenceData,
    current: CurrentData,
    labels: AsOf,
    window_end: datetime,
) -> LabelPairs:
    """Return the version's logged predictions with the labels of their rows, from the data set `labels`."""
    tables = {"rows": current.files, "labels": env.lake().files(labels), "seen": reference.files}
    requests = version_requests_sql(reference.version.version, [TimeSpan(window_end - LABEL_LOOKBACK, window_end)])
    logged = env.engine().query("SELECT * FROM rows LIMIT 0", {"rows": current.files}).column_names
    query = label_pairs_sql(spec, requests, logged, dict(labels.schema))
    return read_label_pairs(spec, env.engine().query(query, tables))


def check_label_shift(
    env: Environment, spec: ModelSpec, reference: ReferenceData, now: pa.Table, rules: MonitoringRules
) -> list[Finding]:
    """Return findings of label shift; none for fewer labels than `evaluation.minimum_rows`.

    Enough labels in total are needed, but not of each class: a class without labels is the largest possible shift.
    """
    if len(now) < spec.evaluation.minimum_rows:
        return []
    target, classes = spec.data.target, spec.data.classes
    truth = _encoded_labels(spec, now, TRUTH_COLUMN)
    if not classes:
        holdout = _encoded_labels(spec, pq.read_table(reference.holdout, columns=[target]), target)
        return check_label_values(target, holdout.astype(np.float64), truth.astype(np.float64), rules)
    known = f"WHERE {sql.quoted_name(target)} IS NOT NULL"
    counting = sql.select_sql(
        f"{sql.quoted_name(target)} AS {TRUTH_COLUMN}, count(*) AS found", "rows", known, "GROUP BY 1"
    )
    counted = env.engine().query(counting, {"rows": reference.files})
    weights = counted["found"].to_numpy().astype(np.float64)
    before = np.bincount(_encoded_labels(spec, counted, TRUTH_COLUMN), weights, minlength=len(classes)).astype(np.int64)
    arrived = np.bincount(truth, minlength=len(classes))
    return check_class_shares(target, classes, before.tolist(), arrived.tolist(), rules)


def _encoded_labels(spec: ModelSpec, rows: pa.Table, column: str) -> EncodedTruth:
    return encode_truth(spec.task, spec.data.classes, rows[column].to_pandas().dropna())


def _truth_and_predictions(spec: ModelSpec, rows: pa.Table, target: str) -> tuple[EncodedTruth, FloatArray]:
    """Return the encoded truth and the checked predictions. Rows with an incomplete prediction are left out."""
    names = list(logged_prediction_columns(spec))
    frame = rows.select([*names, target]).to_pandas().dropna()
    truth: pd.Series = frame[target]
    values = frame[names].to_numpy(dtype=np.float64)
    predictions = values if spec.data.classes else values[:, 0]
    return (
        encode_truth(spec.task, spec.data.classes, truth),
        check_predictions(spec.task, spec.data.classes, len(frame), predictions),
    )

"""Labels that have arrived, and the predictions for them, held against what the version was promoted on."""

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from blocks.common.errors import NotFound
from blocks.environment import Environment
from tasks.evaluation.rules.predictions import Codes, Numbers, check_predictions, encode_truth
from tasks.monitoring.current import Current
from tasks.monitoring.reference import Reference
from tasks.monitoring.rules.findings import Finding, WatchRules
from tasks.monitoring.rules.judgement import Measured
from tasks.monitoring.rules.labels import judge_classes, judge_numbers
from tasks.monitoring.rules.quality import TRUTH, judge_quality, labelled_sql, too_few
from tasks.monitoring.rules.requests import prediction_columns
from tasks.monitoring.rules.windows import Span, of_version
from tasks.shared.models import Model
from tasks.shared.rules import sql
from tasks.shared.rules.model.spec import ModelSpec

BACK = timedelta(days=90)
"""How far back predictions are looked for whose labels may have arrived by now."""

Quality = tuple[list[Measured], list[Finding], list[str]]


def labelled_quality(
    world: Environment, model: Model, reference: Reference, current: Current, until: datetime, rules: WatchRules
) -> Quality:
    """Return the metrics with intervals, what is worse or otherwise, and why nothing was measured where nothing was."""
    spec = model.spec
    if spec.data.entity in spec.inference_log.leave_out:
        return [], [], [f"No quality: {spec.data.entity} is left out of the log, and labels are joined by it."]
    try:
        labels = world.lake().files(world.lake().as_of(spec.data.dataset))
    except NotFound:
        return [], [], ["No quality: no labels have landed."]
    asked = of_version(reference.version.version, [Span(until - BACK, until)])
    tables = {"rows": current.files, "labels": labels, "seen": reference.files}
    now = world.engine().query(labelled_sql(spec, asked), tables)
    shifted, notes = label_shift(world, spec, reference, now, rules)
    truth, said = _pair(spec, now, TRUTH) if len(now) else (np.empty(0, np.int64), np.empty(0))
    if why := too_few(spec.task, truth, spec.evaluation.minimum_rows, len(spec.data.classes)):
        return [], shifted, [f"No quality: {why}.", *notes]
    before = _pair(spec, pq.read_table(reference.holdout), spec.data.target)
    measured, worse = judge_quality(spec.evaluation, spec.task, before, (truth, said))
    return measured, [*worse, *shifted], notes


def label_shift(
    world: Environment, spec: ModelSpec, reference: Reference, now: pa.Table, rules: WatchRules
) -> tuple[list[Finding], list[str]]:
    """Return whether labels are of other shares than before, and why that was not looked at where it was not.

    A class of which no label arrives is the largest shift there is: it takes enough rows, and not some of each class.
    """
    if len(now) < spec.evaluation.minimum_rows:
        return [], []
    target, classes = spec.data.target, spec.data.classes
    if spec.data.time:
        return [], [f"Shares of {target} are not compared: entities have a row for each time, and labels one each."]
    truth = _encoded(spec, now, TRUTH)
    if not classes:
        holdout = _encoded(spec, pq.read_table(reference.holdout, columns=[target]), target)
        return judge_numbers(target, holdout.astype(np.float64), truth.astype(np.float64), rules), []
    known = f"WHERE {sql.name(target)} IS NOT NULL"
    counting = sql.select(f"{sql.name(target)} AS {TRUTH}, count(*) AS found", "rows", known, "GROUP BY 1")
    counted = world.engine().query(counting, {"rows": reference.files})
    weights = counted["found"].to_numpy().astype(np.float64)
    before = np.bincount(_encoded(spec, counted, TRUTH), weights, minlength=len(classes)).astype(np.int64)
    arrived = np.bincount(truth, minlength=len(classes))
    return judge_classes(target, classes, before.tolist(), arrived.tolist(), rules), []


def _encoded(spec: ModelSpec, rows: pa.Table, column: str) -> Codes:
    return encode_truth(spec.task, spec.data.classes, rows[column].to_pandas().dropna())


def _pair(spec: ModelSpec, rows: pa.Table, target: str) -> tuple[Codes, Numbers]:
    """Return encoded truth and checked predictions; rows whose prediction was not logged whole are left out."""
    names = list(prediction_columns(spec))
    frame = rows.select([*names, target]).to_pandas().dropna()
    truth: pd.Series = frame[target]
    values = frame[names].to_numpy(dtype=np.float64)
    said = values if spec.data.classes else values[:, 0]
    return (
        encode_truth(spec.task, spec.data.classes, truth),
        check_predictions(spec.task, spec.data.classes, len(frame), said),
    )

"""The reference data of a deployed version: its training and holdout rows, read again from the lake and counted."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from blocks.environment import Environment
from blocks.records.tracking import ModelVersion
from tasks.evaluation.rules.predictions import check_predictions
from tasks.monitoring.rules.bins import (
    MAX_CATEGORY_VALUES,
    category_column,
    is_free_text,
    number_column,
    text_column,
)
from tasks.monitoring.rules.columns import (
    BinCounts,
    MonitoredColumn,
    QueryFunction,
    count_windows,
    in_parts,
    values_sql,
)
from tasks.monitoring.rules.requests import logged_prediction_columns, monitored_prediction_columns
from tasks.shared.champion import verified_champion_files
from tasks.shared.models import TeamModel
from tasks.shared.records import TierData
from tasks.shared.rules import sql
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.tables import resolve_reads
from tasks.shared.tiers import materialise, parquet_files
from tasks.shared.trust import signed_version_facts
from tasks.validation.rules.parquet_rows import to_frame

REFERENCE_LAYOUT_VERSION = 2
"""The layout of a stored reference, in the name of its folder: one of another layout is not read but made again."""
REFERENCE_SAMPLE_ROWS = 50_000
"""The number of rows from which bin edges are taken, and of holdout rows that are predicted."""
_TEXT_CELLS = 4
"""A text takes about this many times the memory of a number."""


@dataclass(frozen=True)
class ReferenceData:
    """The reference data: monitored columns with bins and counts, the tier's files, and the predicted holdout."""

    version: ModelVersion
    tier: TierData
    columns: tuple[MonitoredColumn, ...]
    counts: dict[str, BinCounts]
    folder: Path

    @property
    def files(self) -> tuple[str, ...]:
        """The Parquet files of the training and holdout rows."""
        return tier_files(self.tier)

    @property
    def holdout(self) -> Path:
        """The file of holdout rows with the version's predictions."""
        return self.folder / "holdout.parquet"


def tier_files(tier: TierData) -> tuple[str, ...]:
    """Return the Parquet files of a tier's rows."""
    return tuple(str(path) for part in tier.evaluated_parts for path in parquet_files(part))


def load_reference(env: Environment, model: TeamModel, version: str) -> ReferenceData:
    """Return the reference data of a version. It is read and counted once, and cached afterwards.

    Raises:
        Refusal: the registry does not know the version or its data, the lake returns other rows for its
            snapshot, or the model's files are not the approved ones.
        NotFound: the snapshot no longer exists.
    """
    spec = model.spec
    registered = env.tracking().version(spec.name, version)
    if registered is None or "ratchet.data_digest" not in registered.tags:
        raise Refusal("the registry does not know what the deployed version was trained on", value=version)
    tier = _reference_tier(env, spec, registered)
    place = env.scratch / "monitoring" / spec.name / f"{version}-{tier.digest[:16]}-{REFERENCE_LAYOUT_VERSION}"
    if not (place / "reference.json").exists():
        _write_reference(env, spec, registered, tier, place)
    stored = json.loads((place / "reference.json").read_text())
    columns = tuple(
        MonitoredColumn(**each | {part: tuple(each[part]) for part in ("edges", "values", "points")})
        for each in stored["columns"]
    )
    counts = {
        name: BinCounts(**{**each, "bins": tuple(each["bins"]), "unseen": ()})
        for name, each in stored["counts"].items()
    }
    return ReferenceData(registered, tier, columns, counts, place)


def _reference_tier(env: Environment, spec: ModelSpec, version: ModelVersion) -> TierData:
    facts, lake = signed_version_facts(env, spec.name, version.version), env.lake()
    if facts.holdout_rule is None:  # under another rule the version may have been trained on its holdout
        raise Refusal(
            "the approved evidence of the version has no holdout rule: it is of an earlier release",
            where=f"{spec.name} version {version.version}",
            remedy="Retrain, and approve the new version.",
        )
    # evidence names the main table's snapshot; the time by which joined tables are read again is only in the tag
    as_of = version.tags["ratchet.reread_as_of"] if spec.data.tables else facts.as_of
    reads = resolve_reads(lake, spec.data, as_of)
    erased = any(read.erased for read in reads.tables.values())  # the other rows are still those of the version
    if reads.main.id != facts.as_of or (reads.digest != facts.data_digest and not erased):
        raise Refusal(
            "the lake no longer has the reference data of the version",
            where=f"{spec.data.dataset} as of {facts.as_of}",
            value=reads.digest,
            remedy="Restore the data set, or retrain.",
        )
    return materialise(lake, env.engine(), reads, spec, facts.tier, env.scratch, facts.holdout_rule)


def _write_reference(env: Environment, spec: ModelSpec, version: ModelVersion, tier: TierData, place: Path) -> None:
    """Write to a staging folder, then rename it: a reader never sees a partial reference."""
    place.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".staged-", dir=place.parent))
    try:
        predicted = predict_holdout_sample(env, spec, version, tier)
        pq.write_table(predicted, staged / "holdout.parquet")
        engine, rows = env.engine(), tier.evaluated_rows
        with engine.query_session({"rows": tier_files(tier)}) as query:
            features = monitored_feature_columns(query, spec, rows)
            counts = count_windows(query, features, "rows", rows=rows)[0]
        prediction_columns = [
            number_column(name, predicted[name].to_numpy(), prediction=True)
            for name in monitored_prediction_columns(spec)
        ]
        with engine.query_session({"rows": (str(staged / "holdout.parquet"),)}) as query:
            counts |= count_windows(query, prediction_columns, "rows")[0]
        content = {
            "columns": [asdict(column) for column in (*features, *prediction_columns)],
            "counts": {name: asdict(each) for name, each in counts.items()},
        }
        (staged / "reference.json").write_text(json.dumps(content))
        staged.rename(place)
    except OSError:
        if not (place / "reference.json").exists():
            raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def predict_holdout_sample(env: Environment, spec: ModelSpec, version: ModelVersion, tier: TierData) -> pa.Table:
    """Return the first holdout rows with the version's predictions. The version was not trained on them."""
    first: list[pa.Table] = []
    for path in parquet_files(tier.holdout):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(10_000):
                if sum(map(len, first)) < REFERENCE_SAMPLE_ROWS:
                    first.append(pa.Table.from_batches([batch]))
    rows = pa.concat_tables(first)
    artifact = verified_champion_files(env, spec.name, version.version)
    features = list(spec.data.features)
    predictions = env.tracking().predict(artifact, to_frame(rows.select(features))[features])
    return with_predictions(spec, rows, predictions)


def with_predictions(spec: ModelSpec, rows: pa.Table, predictions: np.ndarray) -> pa.Table:
    """Return the rows with the columns of the predictions added."""
    values = check_predictions(spec.task, spec.data.classes, len(rows), predictions).reshape(len(rows), -1)
    columns = {name: rows[name] for name in rows.column_names}
    for place, name in enumerate(logged_prediction_columns(spec)):
        columns[name] = pa.array(np.ascontiguousarray(values[:, place]))
    return pa.table(columns)


def monitored_feature_columns(query: QueryFunction, spec: ModelSpec, rows: int) -> list[MonitoredColumn]:
    """Return every feature with its bins. Values of categories are counted; the bins of numbers come from a sample."""
    kinds = spec.data.features
    counted = {name: list[tuple[str, int]]() for name, kind in kinds.items() if kind == "category"}
    totals = dict.fromkeys(counted, (0, 0))
    for some in in_parts(list(counted), _TEXT_CELLS * rows):
        for row in query(values_sql(dict.fromkeys(some, ()), "rows", MAX_CATEGORY_VALUES)).to_pylist():
            counted[row["feature"]].append((row["value"], row["found"]))
            totals[row["feature"]] = int(row["distinct_values"]), int(row["present"])
    texts = [name for name, total in totals.items() if is_free_text(*total)]
    samples = _number_samples(query, spec, [name for name in kinds if name not in counted or name in texts], rows)
    columns = []
    for name, kind in kinds.items():
        if name in texts:
            columns.append(text_column(name, counted[name], samples[name], totals[name][1]))
        elif kind == "category":
            columns.append(category_column(name, counted[name], totals[name][0]))
        else:
            columns.append(number_column(name, samples[name], flag=kind == "flag"))
    return columns


def _number_samples(
    query: QueryFunction, spec: ModelSpec, names: Sequence[str], rows: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Return a sample of the values of numbers, and of the lengths of texts."""
    share = min(10_000, max(1, -(-10_000 * REFERENCE_SAMPLE_ROWS // max(rows, 1))))
    chosen = f"WHERE {sql.bucket_sql(spec.data.entity, 1)} < {share}" if share < 10_000 else ""
    samples = {}
    for some in in_parts(names, REFERENCE_SAMPLE_ROWS):
        picked = [
            f"length(CAST({sql.quoted_name(name)} AS VARCHAR)) AS {sql.quoted_name(name)}"
            if spec.data.features[name] == "category"
            else sql.quoted_name(name)
            for name in some
        ]
        sample = query(sql.select_sql(", ".join(picked), "rows", chosen))
        for name in some:
            samples[name] = pd.to_numeric(sample[name].to_pandas()).to_numpy(dtype=np.float64)
    return samples

"""What a version was promoted on, as watching needs it: read again from the lake, and counted once."""

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from blocks.engines.base import Engine
from blocks.environment import Environment
from blocks.tracking.base import Version
from tasks.evaluation.rules.predictions import check_predictions
from tasks.monitoring.rules.columns import Counts, WatchedColumn, category_column, number_column
from tasks.monitoring.rules.counting import counts_sql, read_counts, values_sql
from tasks.monitoring.rules.requests import prediction_columns, watched_predictions
from tasks.shared.champion import champion_files
from tasks.shared.models import Model
from tasks.shared.reads import fix_reads
from tasks.shared.records import TierData
from tasks.shared.rules import sql
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.tiers import materialise, parquet_files
from tasks.validation.rules.parquet_rows import to_frame

LAYOUT = 1
SAMPLE_ROWS = 50_000
"""Rows from which edges are taken, and rows of the holdout that are predicted."""


@dataclass(frozen=True)
class Reference:
    """The columns with their bins and counts, the tier's files, and the predicted holdout in `folder`."""

    version: Version
    tier: TierData
    columns: tuple[WatchedColumn, ...]
    counts: dict[str, Counts]
    folder: Path

    @property
    def files(self) -> tuple[str, ...]:
        """The Parquet files of all rows: those that trained and those that decided."""
        return tier_files(self.tier)

    @property
    def holdout(self) -> Path:
        """Rows of the holdout with what the version says of them."""
        return self.folder / "holdout.parquet"


def tier_files(tier: TierData) -> tuple[str, ...]:
    """Return the Parquet files of a tier's rows."""
    return tuple(str(path) for part in (tier.train, tier.holdout) for path in parquet_files(part))


def freeze(world: Environment, model: Model, version: str) -> Reference:
    """Read what the version was promoted on again, or find it counted already.

    Raises:
        Refusal: the registry does not know the version or what it saw, the lake has other rows under that
            snapshot by now, or the model's files are not those that were approved.
        NotFound: the snapshot is gone.
    """
    spec = model.spec
    found = world.tracking().version(spec.name, version)
    if found is None or "ratchet.data_digest" not in found.tags:
        raise Refusal("the registry does not know what the version that serves was trained on", value=version)
    tier = _tier(world, spec, found)
    place = world.scratch / "watch" / spec.name / f"{version}-{tier.digest[:16]}-{LAYOUT}"
    if not (place / "reference.json").exists():
        _count(world, spec, found, tier, place)
    said = json.loads((place / "reference.json").read_text())
    columns = tuple(
        WatchedColumn(**{**each, "edges": tuple(each["edges"]), "values": tuple(each["values"])})
        for each in said["columns"]
    )
    counts = {
        name: Counts(**{**each, "bins": tuple(each["bins"]), "unseen": ()}) for name, each in said["counts"].items()
    }
    return Reference(found, tier, columns, counts, place)


def _tier(world: Environment, spec: ModelSpec, version: Version) -> TierData:
    tags = version.tags
    lake = world.lake()
    reads = fix_reads(lake, spec.data, tags.get("ratchet.read_at") or tags["ratchet.snapshot"])
    if reads.digest != tags["ratchet.data_digest"]:
        raise Refusal(
            "the lake no longer has the rows that the version was promoted on",
            where=f"{spec.data.dataset} as of {tags['ratchet.snapshot']}",
            value=reads.digest,
            remedy="Restore the data set, or retrain.",
        )
    return materialise(lake, world.engine(), reads, spec, tags["ratchet.tier"], world.scratch)


def _count(world: Environment, spec: ModelSpec, version: Version, tier: TierData, place: Path) -> None:
    """Write beside, then rename: what is there is whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".staged-", dir=place.parent))
    try:
        predicted = predicted_holdout(world, spec, version, tier)
        pq.write_table(predicted, staged / "holdout.parquet")
        engine, rows = world.engine(), {"rows": tier_files(tier)}
        features = feature_columns(engine, spec, rows["rows"], tier.train_rows + tier.holdout_rows)
        said = [number_column(name, predicted[name].to_numpy(), prediction=True) for name in watched_predictions(spec)]
        counts = read_counts(features, engine.query(counts_sql(features, "rows"), rows).to_pylist())[0]
        own = {"rows": (str(staged / "holdout.parquet"),)}
        counts |= read_counts(said, engine.query(counts_sql(said, "rows"), own).to_pylist())[0]
        content = {
            "columns": [asdict(column) for column in (*features, *said)],
            "counts": {name: asdict(each) for name, each in counts.items()},
        }
        (staged / "reference.json").write_text(json.dumps(content))
        staged.rename(place)
    except OSError:
        if not (place / "reference.json").exists():
            raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def predicted_holdout(world: Environment, spec: ModelSpec, version: Version, tier: TierData) -> pa.Table:
    """Return the first rows of the holdout with what the version says of them: no row that it was trained on."""
    first: list[pa.Table] = []
    for path in parquet_files(tier.holdout):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(10_000):
                if sum(map(len, first)) < SAMPLE_ROWS:
                    first.append(pa.Table.from_batches([batch]))
    rows = pa.concat_tables(first)
    artifact = champion_files(world, spec.name, version.version)
    features = list(spec.data.features)
    said = world.tracking().predict(artifact, to_frame(rows.select(features))[features])
    return with_predictions(spec, rows, said)


def with_predictions(spec: ModelSpec, rows: pa.Table, said: np.ndarray) -> pa.Table:
    """Return the rows with one column more for each column of the predictions."""
    values = check_predictions(spec.task, spec.data.classes, len(rows), said).reshape(len(rows), -1)
    columns = {name: rows[name] for name in rows.column_names}
    for place, name in enumerate(prediction_columns(spec)):
        columns[name] = pa.array(np.ascontiguousarray(values[:, place]))
    return pa.table(columns)


def feature_columns(engine: Engine, spec: ModelSpec, files: tuple[str, ...], rows: int) -> list[WatchedColumn]:
    """Return every feature with its bins, from the values of categories and a sample of the numbers."""
    tables = {"rows": files}
    numbers = [name for name, kind in spec.data.features.items() if kind != "category"]
    share = min(10_000, max(1, -(-10_000 * SAMPLE_ROWS // max(rows, 1))))
    sampled = f"WHERE {sql.bucket(spec.data.entity, 1)} < {share}" if share < 10_000 else ""
    sample = engine.query(sql.select(sql.names(numbers), "rows", sampled), tables) if numbers else None
    found = []
    for name, kind in spec.data.features.items():
        if kind == "category":
            answer = engine.query(values_sql(name, "rows"), tables).to_pylist()
            found.append(category_column(name, [(row["value"], row["found"]) for row in answer]))
        elif sample is not None:
            values = pd.to_numeric(sample[name].to_pandas()).to_numpy(dtype=np.float64)
            found.append(number_column(name, values, flag=kind == "flag"))
    return found

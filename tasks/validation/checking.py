"""Hold rows against the model's expectations where they lie; what does not hold stops the run."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from blocks.engines.base import Engine
from blocks.lake.base import Lake
from runtime.digests import text_digest
from runtime.files import replace_text
from tasks.shared.models import Model
from tasks.shared.records import Checked, TierData
from tasks.shared.rules.rows.buckets import BUCKET_COLUMN, BUCKETS
from tasks.shared.rules.rows.tiers import TIERS, tier_bound
from tasks.validation.rules.parquet_rows import TABLE, ParquetRows
from tasks.validation.rules.statistics import (
    Statistics,
    from_json,
    parent_statistics,
    statistics_markdown,
    tier_statistics,
    to_json,
)

RULES = 3
"""Changes when the check itself is done in another way, so that an older pass is not taken for a new one."""


def rows_of(files: Sequence[str | Path], engine: Engine) -> ParquetRows:
    """Return Parquet files as rows that the engine computes over; each question opens them anew."""
    paths = tuple(map(str, files))
    return ParquetRows(paths, lambda sql: engine.query(sql, {TABLE: paths}))


@contextmanager
def opened_rows(files: Sequence[str | Path], engine: Engine) -> Iterator[ParquetRows]:
    """Give Parquet files as rows that the engine computes over, opened once: for the many questions of a check."""
    paths = tuple(map(str, files))
    if not paths:  # an engine has nothing to open
        yield rows_of(paths, engine)
        return
    with engine.asking({TABLE: paths}) as ask:
        yield ParquetRows(paths, ask)


def _tier_files(data: TierData) -> list[Path]:
    """Return the files of all rows of a tier, train and holdout."""
    return [file for part in (data.train, data.holdout) for file in sorted(part.glob("*.parquet"))]


def compare(lake: Lake, engine: Engine, scratch: Path, model: Model, data: TierData) -> str:
    """Return the tier's statistics against those of the next larger tier, as markdown; "" for one that is all data."""
    if data.tier == TIERS[-1]:
        return ""
    parent = _parent(lake, engine, scratch, model, data)
    with opened_rows(_tier_files(data), engine) as rows:
        tier = tier_statistics(rows, model.spec.data.entity, parent)
    return "" if tier.rows == parent.rows else statistics_markdown(parent, tier, model.spec.data.target)


def _parent(lake: Lake, engine: Engine, scratch: Path, model: Model, data: TierData) -> Statistics:
    """Return the statistics of the tier that holds this one, as of its read: measured once, kept below scratch.

    Not of all data: a development tier of 1 % must not cost a read of the whole lake.
    """
    spec, tiers = model.spec.data, model.spec.tiers
    larger = TIERS[TIERS.index(data.tier) + 1]
    bound = BUCKETS if tiers.stratify_by else tier_bound(tiers, larger)
    kinds = {
        spec.target: "number" if model.spec.task == "regression" else "category",
        **{name: spec.features[name] for name in spec.main_features},
    }
    rule = json.dumps([RULES, data.data_digest, spec.dataset, spec.entity, list(kinds.items()), bound])
    kept = scratch / "statistics" / spec.dataset / f"{text_digest(rule)[:32]}.json"
    if kept.exists():
        return from_json(json.loads(kept.read_text()))
    files = lake.files(lake.as_of(spec.dataset, data.as_of), below_bucket=bound)
    within = f"WITH {TABLE} AS (SELECT * FROM files WHERE {BUCKET_COLUMN} < {bound})"  # noqa: S608  a number
    with engine.asking({"files": files}) as ask:
        found = parent_statistics(ParquetRows(files, lambda sql: ask(f"{within} {sql}")), spec.entity, kinds)
    _write(kept, json.dumps(to_json(found)))
    return found


def _rules_digest(model: Model) -> str:
    release = f"{RULES}\n{version('great-expectations')}"
    rules = f"{release}\n{model.spec.data.entity}\n{model.rules().read_text()}"
    return text_digest(rules)[:32]


def _keep(checked: Checked, path: Path) -> Checked:
    _write(path, checked.model_dump_json())
    return checked


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, text)

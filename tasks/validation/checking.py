"""Validation of rows in their Parquet files, and the comparison of a tier with the next larger one."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from blocks.engines.base import Engine
from blocks.lake.base import Lake
from runtime.digests import text_digest
from runtime.files import write_text_atomically
from tasks.shared.models import TeamModel
from tasks.shared.records import TierData, ValidationResult
from tasks.shared.rules.rows.buckets import BUCKET_COLUMN, BUCKETS
from tasks.shared.rules.rows.tiers import TIERS, tier_bucket_bound
from tasks.validation.rules.parquet_rows import TABLE_NAME, ParquetRows
from tasks.validation.rules.statistics import (
    TableStatistics,
    parent_statistics,
    statistics_from_json,
    statistics_to_json,
    tier_comparison_markdown,
    tier_statistics,
)

VALIDATION_RULES_VERSION = 3
"""Raise this number when the validation changes, so that stored passes of the old one are not used."""


def parquet_rows(files: Sequence[str | Path], engine: Engine) -> ParquetRows:
    """Return Parquet files as rows for the engine. Each query opens the files again."""
    paths = tuple(map(str, files))
    return ParquetRows(paths, lambda sql: engine.query(sql, {TABLE_NAME: paths}))


@contextmanager
def open_parquet_rows(files: Sequence[str | Path], engine: Engine) -> Iterator[ParquetRows]:
    """Return Parquet files as rows for the engine, opened once for the many queries of a validation."""
    paths = tuple(map(str, files))
    if not paths:  # an engine has nothing to open
        yield parquet_rows(paths, engine)
        return
    with engine.query_session({TABLE_NAME: paths}) as query:
        yield ParquetRows(paths, query)


def _tier_files(data: TierData) -> list[Path]:
    """Return the files of all rows of a tier, train and holdout."""
    return [file for part in (data.train, data.holdout) for file in sorted(part.glob("*.parquet"))]


def compare_with_parent_tier(lake: Lake, engine: Engine, scratch: Path, model: TeamModel, data: TierData) -> str:
    """Return the tier's statistics against those of the next larger tier as Markdown; "" for the largest tier."""
    if data.tier == TIERS[-1]:
        return ""
    parent = _parent_tier_statistics(lake, engine, scratch, model, data)
    with open_parquet_rows(_tier_files(data), engine) as rows:
        tier = tier_statistics(rows, model.spec.data.entity, parent)
    return "" if tier.rows == parent.rows else tier_comparison_markdown(parent, tier, model.spec.data.target)


def _parent_tier_statistics(
    lake: Lake, engine: Engine, scratch: Path, model: TeamModel, data: TierData
) -> TableStatistics:
    """Return the statistics of the next larger tier as of the same read. They are computed once and cached in scratch.

    Only that tier is read: a development tier of 1 % must not cost a read of the whole lake.
    """
    spec, tiers = model.spec.data, model.spec.tiers
    larger = TIERS[TIERS.index(data.tier) + 1]
    bound = BUCKETS if tiers.stratify_by else tier_bucket_bound(tiers, larger)
    kinds = {
        spec.target: "number" if model.spec.task == "regression" else "category",
        **{name: spec.features[name] for name in spec.main_features},
    }
    rule = json.dumps(
        [VALIDATION_RULES_VERSION, data.data_digest, spec.dataset, spec.entity, list(kinds.items()), bound]
    )
    cached = scratch / "statistics" / spec.dataset / f"{text_digest(rule)[:32]}.json"
    if cached.exists():
        return statistics_from_json(json.loads(cached.read_text()))
    files = lake.files(lake.as_of(spec.dataset, data.as_of), below_bucket=bound)
    within = f"WITH {TABLE_NAME} AS (SELECT * FROM files WHERE {BUCKET_COLUMN} < {bound})"  # noqa: S608  a number
    with engine.query_session({"files": files}) as query:
        parent = parent_statistics(ParquetRows(files, lambda sql: query(f"{within} {sql}")), spec.entity, kinds)
    _write_text(cached, json.dumps(statistics_to_json(parent)))
    return parent


def _suite_digest(model: TeamModel) -> str:
    release = f"{VALIDATION_RULES_VERSION}\n{version('great-expectations')}"
    rules = f"{release}\n{model.spec.data.entity}\n{model.expectations_file().read_text()}"
    return text_digest(rules)[:32]


def _cache_result(validation_result: ValidationResult, path: Path) -> ValidationResult:
    _write_text(path, validation_result.model_dump_json())
    return validation_result


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, text)

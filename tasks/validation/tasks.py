"""Validation of the rows of a tier in their Parquet files, and its comparison with the next larger tier."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from prefect import get_run_logger, task
from pydantic import TypeAdapter

from blocks.engines.base import Engine
from blocks.engines.duckdb import DuckDBEngine
from blocks.environment import Environment, open_environment
from blocks.lake.base import Lake
from runtime.digests import text_digest
from runtime.files import write_text_atomically
from runtime.foreign_text import Markdown, stored_markdown
from tasks.shared.checks import report_and_require_valid
from tasks.shared.models import TeamModel, load_model
from tasks.shared.records import TierData, ValidationResult
from tasks.shared.reports import create_markdown_artifact
from tasks.shared.retries import TASK_OPTIONS
from tasks.shared.rules.rows.buckets import BUCKET_COLUMN, BUCKETS
from tasks.shared.rules.rows.tiers import TIERS, tier_bucket_bound
from tasks.validation.rules.expectations import validate_table
from tasks.validation.rules.parquet_rows import TABLE_NAME, ParquetRows
from tasks.validation.rules.statistics import (
    TableStatistics,
    parent_statistics,
    tier_comparison_markdown,
    tier_statistics,
)

VALIDATION_RULES_VERSION = 4
"""Raise this number when the validation changes, so that stored passes of the old one are not used."""


@task(name="validate", **TASK_OPTIONS)
def validate(model: str, data: TierData, environment: str = "") -> ValidationResult:
    """Validate all rows of a tier, train and holdout. Raises Refusal with column, expectation and examples.

    A passed report is stored with the tier, so the same rows, suite and release of Great Expectations are validated
    once. A failure is never stored, so it is found again each time.

    The environment's engine computes, and the report compares the tier with the next larger one. With environment ""
    DuckDB in this process computes, and the tier is not compared.
    """
    team_model = load_model(model)
    cached_report = data.folder / f"checks-{_suite_digest(team_model)}.json"
    where = f"{model}, {data.tier} tier as of {data.as_of}"
    if not cached_report.exists():
        env = open_environment(environment) if environment else None
        validation_result = _validate_tier(env, team_model, data, where)
        _write_text(cached_report, validation_result.model_dump_json())
        return validation_result
    validation_result = ValidationResult.model_validate_json(cached_report.read_text())
    report = stored_markdown(validation_result.report_markdown)
    create_markdown_artifact(key="validation", markdown=report, description=f"Checks of {where}, kept")
    passed, rows_checked = validation_result.expectations_passed, validation_result.rows
    get_run_logger().info("%d expectations passed on these %d rows in an earlier run", passed, rows_checked)
    return validation_result


def _validate_tier(env: Environment | None, model: TeamModel, data: TierData, where: str) -> ValidationResult:
    engine = env.engine() if env else DuckDBEngine.model_validate({})
    comparison_markdown = Markdown("")
    with open_parquet_rows(_tier_files(data), engine) as rows:
        report = validate_table(rows, model.expectation_suite(), key=model.spec.data.entity)
    if env and report.passed:
        comparison_markdown = compare_with_parent_tier(env.lake(), engine, env.scratch, model, data)
    return report_and_require_valid(report, where, comparison_markdown)


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
    """Return the files of all rows of a tier, whichever part they are in."""
    return [file for part in data.all_parts for file in sorted(part.glob("*.parquet"))]


def compare_with_parent_tier(lake: Lake, engine: Engine, scratch: Path, model: TeamModel, data: TierData) -> Markdown:
    """Return the tier's statistics against those of the next larger tier as Markdown; "" for the largest."""
    if data.tier == TIERS[-1]:
        return Markdown("")
    parent = _parent_tier_statistics(lake, engine, scratch, model, data)
    with open_parquet_rows(_tier_files(data), engine) as rows:
        tier = tier_statistics(rows, model.spec.data.entity, parent)
    return Markdown("") if tier.rows == parent.rows else tier_comparison_markdown(parent, tier, model.spec.data.target)


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
        return TypeAdapter(TableStatistics).validate_json(cached.read_text())
    files = lake.files(lake.as_of(spec.dataset, data.as_of), below_bucket=bound)
    within = f"WITH {TABLE_NAME} AS (SELECT * FROM files WHERE {BUCKET_COLUMN} < {bound})"  # noqa: S608  a number
    with engine.query_session({"files": files}) as query:
        parent = parent_statistics(ParquetRows(files, lambda sql: query(f"{within} {sql}")), spec.entity, kinds)
    _write_text(cached, json.dumps(asdict(parent)))
    return parent


def _suite_digest(model: TeamModel) -> str:
    release = f"{VALIDATION_RULES_VERSION}\n{version('great-expectations')}"
    rules = f"{release}\n{model.spec.data.entity}\n{model.expectations_text()}"
    return text_digest(rules)[:32]


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, text)

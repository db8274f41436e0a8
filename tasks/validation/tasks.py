"""Prefect task that validates a tier."""

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from blocks.engines.duckdb import DuckDBEngine
from blocks.environment import open_environment
from tasks.shared.checks import report_and_require_valid
from tasks.shared.models import load_model
from tasks.shared.records import TierData, ValidationResult
from tasks.shared.retries import TASK_OPTIONS
from tasks.validation.checking import (
    _cache_result,
    _suite_digest,
    _tier_files,
    compare_with_parent_tier,
    open_parquet_rows,
)
from tasks.validation.rules.expectations import validate_table


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
        engine = env.engine() if env else DuckDBEngine.model_validate({})
        with open_parquet_rows(_tier_files(data), engine) as rows:
            report = validate_table(rows, team_model.expectation_suite(), key=team_model.spec.data.entity)
        comparison_markdown = ""
        if env and report.passed:
            comparison_markdown = compare_with_parent_tier(env.lake(), env.engine(), env.scratch, team_model, data)
        return _cache_result(report_and_require_valid(report, where, comparison_markdown), cached_report)
    validation_result = ValidationResult.model_validate_json(cached_report.read_text())
    create_markdown_artifact(
        key="validation", markdown=validation_result.report_markdown, description=f"Checks of {where}, kept"
    )
    passed, rows_checked = validation_result.expectations_passed, validation_result.rows
    get_run_logger().info("%d expectations passed on these %d rows in an earlier run", passed, rows_checked)
    return validation_result

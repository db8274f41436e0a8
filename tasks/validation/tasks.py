"""Prefect task of validation."""

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


@task(name="expect", **TASK_OPTIONS)
def validate(model: str, data: TierData, environment: str = "") -> ValidationResult:
    """Check all rows of a tier, train and holdout. Raises Refusal naming column, expectation and examples.

    The same rows under the same suite and release of Great Expectations are checked once: the passed report
    lies with the tier. A failure is never kept, so it is found anew each time.

    The environment's engine computes, and the report compares the tier with the next larger one; without one, ""
    DuckDB in this process computes, and nothing is compared.
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
    checked = ValidationResult.model_validate_json(cached_report.read_text())
    create_markdown_artifact(key="checks", markdown=checked.report_markdown, description=f"Checks of {where}, kept")
    get_run_logger().info("%d expectations held on these %d rows before", checked.expectations_passed, checked.rows)
    return checked

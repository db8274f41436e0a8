"""Prefect task of validation."""

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from blocks.engines.duckdb import DuckDBEngine
from blocks.environment import open_environment
from tasks.shared.checks import settle
from tasks.shared.models import load_model
from tasks.shared.records import Checked, TierData
from tasks.shared.retries import STAGE
from tasks.validation.checking import _keep, _rules_digest, _tier_files, compare, opened_rows
from tasks.validation.rules.expectations import check


@task(name="expect", **STAGE)
def expect(model: str, data: TierData, environment: str = "") -> Checked:
    """Check all rows of a tier, train and holdout. Raises Refusal naming column, expectation and examples.

    The same rows under the same suite and release of Great Expectations are checked once: the passed report
    lies with the tier. A failure is never kept, so it is found anew each time.

    The environment's engine computes, and the report compares the tier with the next larger one; without one, ""
    DuckDB in this process computes, and nothing is compared.
    """
    brought = load_model(model)
    kept = data.folder / f"checks-{_rules_digest(brought)}.json"
    where = f"{model}, {data.tier} tier as of {data.as_of}"
    if not kept.exists():
        world = open_environment(environment) if environment else None
        engine = world.engine() if world else DuckDBEngine.model_validate({})
        with opened_rows(_tier_files(data), engine) as rows:
            report = check(rows, brought.suite(), key=brought.spec.data.entity)
        compared = ""
        if world and report.passed:
            compared = compare(world.lake(), world.engine(), world.scratch, brought, data)
        return _keep(settle(report, where, compared), kept)
    checked = Checked.model_validate_json(kept.read_text())
    create_markdown_artifact(key="checks", markdown=checked.report, description=f"Checks of {where}, kept")
    get_run_logger().info("%d expectations held on these %d rows before", checked.passed, checked.rows)
    return checked

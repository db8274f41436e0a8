"""Report what the expectations of a table found, and refuse a table that fails one."""

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact

from tasks.shared.records import Checked
from tasks.shared.rules.refusal import Refusal
from tasks.validation.rules.expectations import CheckReport
from tasks.validation.rules.report import checks_markdown


def settle(report: CheckReport, where: str, more: str = "") -> Checked:
    """Keep the report, with `more` markdown below, as an artifact; refuse when any expectation failed."""
    shown = checks_markdown(report) + (f"\n{more}" if more else "")
    create_markdown_artifact(key="checks", markdown=shown, description=f"Checks of {where}")
    if not report.passed:
        raise Refusal(
            "the data does not meet the model's expectations: " + "; ".join(report.reasons),
            where=where,
            remedy="See the artifact `checks` for rows; mend the source, or the suite in expectations.yaml.",
        )
    count = len(report.results)
    get_run_logger().info("%d of %d expectations hold on %d rows", count, count, report.rows)
    return Checked(suite=report.suite, rows=report.rows, passed=count, report=shown)

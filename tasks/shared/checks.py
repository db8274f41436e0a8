"""Report what the expectations of a table found, and refuse a table that fails one."""

from prefect import get_run_logger

from runtime.foreign_text import Markdown
from tasks.shared.records import ValidationResult
from tasks.shared.reports import create_markdown_artifact
from tasks.shared.rules.refusal import Refusal
from tasks.validation.rules.report import ValidationReport, validation_markdown

_NOTHING = Markdown("")


def report_and_require_valid(
    report: ValidationReport, where: str, extra_markdown: Markdown = _NOTHING
) -> ValidationResult:
    """Keep the report, with `extra_markdown` markdown below, as an artifact; refuse when any expectation failed."""
    markdown = Markdown("\n").join(filter(None, (validation_markdown(report), extra_markdown)))
    create_markdown_artifact(key="validation", markdown=markdown, description=f"Checks of {where}")
    if not report.passed:
        raise Refusal(
            "the data does not meet the model's expectations: " + "; ".join(report.reasons),
            where=where,
            remedy="See the artifact `validation` for rows; correct the source, or the suite in expectations.yaml.",
        )
    count = len(report.results)
    get_run_logger().info("%d of %d expectations hold on %d rows. %s", count, count, report.rows, report.left_out)
    return ValidationResult(suite=report.suite, rows=report.rows, expectations_passed=count, report_markdown=markdown)

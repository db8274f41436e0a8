"""Hold rows against the model's expectations; what does not hold stops the run."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from tasks.logic.checks_report import checks_markdown
from tasks.logic.expectations import CheckReport, check
from tasks.logic.refusal import Refusal
from tasks.models import load_model
from tasks.records import Checked, TierData
from tasks.retries import STAGE


@task(name="expect", **STAGE)
def expect(model: str, data: TierData) -> Checked:
    """Check all rows of a tier, train and holdout. Raises Refusal naming column, expectation and examples."""
    tables = [pq.read_table(folder / "rows.parquet") for folder in (data.train, data.holdout)]
    suite, key = load_model(model).suite(), load_model(model).spec.data.entity
    report = check(to_frame(pa.concat_tables(tables)), suite, key=key)
    return settle(report, where=f"{model}, {data.tier} tier as of {data.as_of}")


def settle(report: CheckReport, where: str) -> Checked:
    """Keep the report as an artifact of the run, and refuse when any expectation failed."""
    create_markdown_artifact(key="checks", markdown=checks_markdown(report), description=f"Checks of {where}")
    if not report.passed:
        raise Refusal(
            "the data does not meet the model's expectations: " + "; ".join(report.reasons),
            where=where,
            remedy="See the artifact `checks` for rows; mend the source, or the suite in expectations.yaml.",
        )
    get_run_logger().info(
        "%d of %d expectations hold on %d rows", len(report.results), len(report.results), report.rows
    )
    return Checked(suite=report.suite, rows=report.rows, passed=len(report.results))


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Return the table as pandas sees it, giving Arrow's memory back column by column."""
    frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True, date_as_object=False)
    return frame

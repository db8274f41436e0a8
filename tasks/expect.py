"""Hold rows against the model's expectations; what does not hold stops the run."""

import hashlib
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from tasks.logic.checks_report import checks_markdown
from tasks.logic.expectations import CheckReport, check
from tasks.logic.refusal import Refusal
from tasks.models import Model, load_model
from tasks.records import Checked, TierData
from tasks.retries import STAGE


@task(name="expect", **STAGE)
def expect(model: str, data: TierData) -> Checked:
    """Check all rows of a tier, train and holdout. Raises Refusal naming column, expectation and examples.

    The same rows under the same suite and release of Great Expectations are checked once: the passed report
    lies with the tier. A failure is never kept, so it is found anew each time.
    """
    brought = load_model(model)
    kept = data.folder / f"checks-{_rules_digest(brought)}.json"
    where = f"{model}, {data.tier} tier as of {data.as_of}"
    if not kept.exists():
        tables = [pq.read_table(folder / "rows.parquet") for folder in (data.train, data.holdout)]
        report = check(to_frame(pa.concat_tables(tables)), brought.suite(), key=brought.spec.data.entity)
        return _keep(settle(report, where), kept)
    checked = Checked.model_validate_json(kept.read_text())
    create_markdown_artifact(key="checks", markdown=checked.report, description=f"Checks of {where}, kept")
    get_run_logger().info("%d expectations held on these %d rows before", checked.passed, checked.rows)
    return checked


def settle(report: CheckReport, where: str) -> Checked:
    """Keep the report as an artifact of the run, and refuse when any expectation failed."""
    shown = checks_markdown(report)
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


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Return the table as pandas sees it, giving Arrow's memory back column by column."""
    frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True, date_as_object=False)
    return frame


def _rules_digest(model: Model) -> str:
    rules = f"{version('great-expectations')}\n{model.spec.data.entity}\n{model.rules().read_text()}"
    return hashlib.sha256(rules.encode()).hexdigest()[:32]


def _keep(checked: Checked, path: Path) -> Checked:
    beside = path.with_suffix(f".{id(checked)}.tmp")
    beside.write_text(checked.model_dump_json())
    beside.replace(path)
    return checked

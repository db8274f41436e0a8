"""Hold rows against the model's expectations where they lie; what does not hold stops the run."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from blocks.engines.base import Engine
from blocks.engines.duckdb import DuckDBEngine
from blocks.environment import open_environment
from blocks.files import replace_text
from blocks.lake.base import Lake
from tasks.logic.expect.expectations import CheckReport, check
from tasks.logic.expect.parquet_rows import TABLE, ParquetRows, to_frame
from tasks.logic.expect.report import checks_markdown
from tasks.logic.refusal import Refusal
from tasks.logic.sample.buckets import BUCKET_COLUMN, BUCKETS
from tasks.logic.sample.statistics import (
    Statistics,
    from_json,
    parent_statistics,
    statistics_markdown,
    tier_statistics,
    to_json,
)
from tasks.logic.sample.tiers import TIERS, tier_bound
from tasks.models import Model, load_model
from tasks.records import Checked, TierData
from tasks.retries import STAGE

__all__ = ["expect", "opened_rows", "rows_of", "settle", "to_frame"]

RULES = 3
"""Changes when the check itself is done in another way, so that an older pass is not taken for a new one."""


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
    kept = scratch / "statistics" / spec.dataset / f"{hashlib.sha256(rule.encode()).hexdigest()[:32]}.json"
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
    return hashlib.sha256(rules.encode()).hexdigest()[:32]


def _keep(checked: Checked, path: Path) -> Checked:
    _write(path, checked.model_dump_json())
    return checked


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, text)

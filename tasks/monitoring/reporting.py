"""Reporting of monitoring runs: report files, samples for Evidently, its report, artifacts and alerts."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect.runtime import flow_run

from blocks.environment import Environment
from blocks.tracking.base import Tracking
from runtime.foreign_text import Markdown, markdown_link, stored_markdown
from tasks.evaluation.rules.evaluation import record_json
from tasks.monitoring.current import CurrentData
from tasks.monitoring.reference import ReferenceData
from tasks.monitoring.rules.columns import ColumnKind, MonitoredColumn
from tasks.monitoring.rules.conclusion import FINDING_EVENTS, MonitoringReport
from tasks.monitoring.rules.drift import ColumnDrift
from tasks.monitoring.rules.findings import MonitoringRules
from tasks.monitoring.rules.report import monitoring_markdown
from tasks.notification.rules.story import is_alert_open
from tasks.shared.alerts import alert_cause, emit_alert, model_owner
from tasks.shared.programs import environment_without_credentials
from tasks.shared.records import AlertEvent, MonitoringResult
from tasks.shared.reports import create_image_artifact, create_link_artifact, create_markdown_artifact
from tasks.shared.rules import sql
from tasks.shared.rules.figures import png_url
from tasks.shared.rules.rows.buckets import BUCKETS
from tasks.shared.rules.run_outcomes import outcome_words

EVIDENTLY_TIMEOUT_SECONDS = 120
_ROOT = Path(__file__).resolve().parents[2]
_FORK = _ROOT / "runtime" / "warm_client.py"
_RUN_FILES = ("report.md", "monitoring-report.json", "monitoring-report.png", "report.html", "report.json")


def run_evidently(folder: Path) -> bool:
    """Run Evidently over the samples in a separate process, and return whether it succeeded.

    Its report only illustrates the results, so a failure does not change them.
    """
    command = [sys.executable, "-I", "-S", str(_FORK), "tasks.monitoring.rules.evidently_report", str(folder)]
    try:
        done = subprocess.run(
            command, cwd=_ROOT, env=environment_without_credentials(), capture_output=True,
            timeout=EVIDENTLY_TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    if done.returncode:
        (folder / "evidently.log").write_bytes(done.stdout + done.stderr)
    return done.returncode == 0


def log_monitoring_files(tracking: Tracking, result: MonitoringResult) -> str:
    """Log the report files of a monitoring run to the version's tracked run, and return the address of its page."""
    if not result.run_id:
        return ""
    upload_folder = result.folder / "kept"
    shutil.rmtree(upload_folder, ignore_errors=True)
    upload_folder.mkdir()
    for name in _RUN_FILES:
        if (result.folder / name).exists():
            shutil.copyfile(result.folder / name, upload_folder / name)
    tracking.log_files(result.run_id, upload_folder, artifact_folder=f"monitoring/{flow_run.id or result.folder.name}")
    tracking.log(
        result.run_id, tags={"ratchet.monitoring.outcome": result.outcome, "ratchet.monitoring.summary": result.summary}
    )
    return tracking.run(result.run_id).url


def remove_logged_files(folder: Path) -> None:
    """Remove the large files, which the tracked run has. The report, its JSON and the plot stay in the folder."""
    shutil.rmtree(folder / "kept", ignore_errors=True)
    for name in ("report.html", "report.json", "reference.parquet", "current.parquet", "scores.json"):
        (folder / name).unlink(missing_ok=True)


def create_monitoring_artifacts(result: MonitoringResult, page: str, has_evidently_report: bool) -> None:
    """Create the artifacts of the flow run: the report, its plot, and a link to Evidently's report if there is one."""
    markdown = stored_markdown((result.folder / "report.md").read_text())
    if page:
        link = markdown_link("the version's run", page)
        markdown += Markdown("\nEvidently's report, the plot and the numbers are files of {}\n").format(link)
    create_markdown_artifact(
        key=f"monitoring-{result.model.replace('_', '-')}", markdown=markdown, description=result.summary
    )
    plot = result.folder / "monitoring-report.png"
    if plot.exists():
        create_image_artifact(key="monitoring-plot", image_url=png_url(plot.read_bytes()), description=result.summary)
    if page and has_evidently_report:
        create_link_artifact(
            key="monitoring-evidently", link=page, link_text=f"Evidently's report: {outcome_words(result.outcome)}"
        )


def emit_monitoring_alerts(
    env: Environment, result: MonitoringResult, run_url: str, *, key: str, now: datetime | None = None
) -> int:
    """Emit the alerts of a monitoring run, and the end of alerts whose findings are gone; once for each `key`.

    Returns the number of emitted signals.
    """
    links = {"version's run": run_url} if run_url else {}
    for alert_event in result.alert_events:
        payload = {
            "version": result.version,
            "links": links,
            "flow_run": key,
            "owner": model_owner(result.model),
            "causes": list(alert_event.cause_columns),
            "details": list(alert_event.details),
        }
        emit_alert(
            env,
            alert_event.event,
            model=result.model,
            sentence=alert_event.sentence,
            alert_record_key=f"{alert_event.event}:{key}",
            severity=alert_event.severity,
            links=links,
            payload=payload,
            now=now,
        )
    cleared_events = [
        event
        for event in result.cleared_events
        if is_alert_open(env.outbox().signals(alert_cause(env, result.model, event)))
    ]
    for event in cleared_events:
        sentence = f"Version {result.version}: {result.summary}"
        emit_alert(
            env,
            event,
            model=result.model,
            sentence=sentence,
            alert_record_key=f"{event}:{key}",
            state="recovered",
            links=links,
            now=now,
        )
    return len(result.alert_events) + len(cleared_events)


def alert_monitoring_failure(env: Environment, model: str, error: BaseException) -> None:
    """Raise an alert that a monitoring run failed."""
    sentence = f"Monitoring itself failed: {type(error).__name__}: {str(error)[:500]}"
    emit_alert(
        env,
        FINDING_EVENTS["impossible"],
        model=model,
        sentence=sentence,
        alert_record_key=f"monitoring-failed:{flow_run.id}",
        payload={"causes": ["failure:"], "flow_run": str(flow_run.id)},
    )


REPORT_SAMPLE_ROWS = 5_000
REPORT_COLUMNS = 50
"""The most columns of Evidently's own comparison: those with the largest index. A column takes up to half a second."""


def write_report_samples(
    env: Environment,
    reference: ReferenceData,
    current: CurrentData,
    compared: Sequence[ColumnDrift],
    rules: MonitoringRules,
    folder: Path,
) -> None:
    """Write `reference.parquet` and `current.parquet`, with at most `REPORT_SAMPLE_ROWS` rows each, and `scores.json`.

    Rows are sampled by a hash of their key, so that a repeat takes the same rows. The reference sample is the holdout,
    because it has the version's predictions.
    """
    largest = sorted(compared, key=lambda each: (math.isnan(each.psi), -each.psi))[:REPORT_COLUMNS]
    columns = [each.column for each in largest]
    before = pq.read_table(reference.holdout).slice(0, REPORT_SAMPLE_ROWS)
    pq.write_table(cast_columns(before, columns), folder / "reference.parquet")
    share = max(1, min(BUCKETS, math.ceil(1.1 * BUCKETS * REPORT_SAMPLE_ROWS / max(1, sum(current.rows_per_window)))))
    text = " || '-' || ".join(
        f"coalesce(CAST({sql.quoted_name(name)} AS VARCHAR), '')" for name in current.sampling_key
    )
    chosen = f"WHERE bucket_of({text}, 1) < {share}" if share < BUCKETS else ""
    query = sql.select_sql(
        sql.quoted_names(each.name for each in columns), current.source_sql, chosen, f"LIMIT {REPORT_SAMPLE_ROWS}"
    )
    now = env.engine().query(query, {"rows": current.files})
    pq.write_table(cast_columns(now, columns), folder / "current.parquet")
    scores = {
        each.column.name: {
            "score": each.psi if math.isfinite(each.psi) else None,
            "threshold": rules.psi_threshold,
            "drifted": each.drifted,
        }
        for each in compared
    }
    (folder / "scores.json").write_text(json.dumps(scores))


def cast_columns(rows: pa.Table, columns: Sequence[MonitoredColumn]) -> pa.Table:
    """Return the columns as doubles and text, so that both samples have the same types; free text as its length."""
    return pa.table({each.name: _cast(rows[each.name], each.kind) for each in columns})


def _cast(values: pa.ChunkedArray, kind: ColumnKind) -> pa.ChunkedArray:
    if kind == "text":
        return pc.utf8_length(values.cast(pa.string())).cast(pa.float64())
    return values.cast(pa.float64() if kind == "number" else pa.string())


def write_monitoring_report(
    report: MonitoringReport,
    rules: MonitoringRules,
    current: CurrentData,
    reference: ReferenceData | None,
    folder: Path,
) -> MonitoringResult:
    """Write the report as Markdown and JSON, and return the result for the next tasks."""
    links = {"model version": reference.version.url} if reference else {}
    (folder / "monitoring-report.json").write_text(record_json(report))
    (folder / "report.md").write_text(monitoring_markdown(report, rules, where=current.description, links=links))
    return MonitoringResult(
        model=report.model,
        version=report.version,
        run_id=reference.version.run_id if reference else "",
        outcome=report.outcome,
        summary=report.sentence,
        rows_per_window=report.rows_per_window,
        alert_events=tuple(
            _alert_event(report, kind, event) for kind, event in FINDING_EVENTS.items() if report.findings_of(kind)
        ),
        cleared_events=tuple(FINDING_EVENTS[kind] for kind in report.cleared_kinds()),
        psi_by_column={each.column.name: each.psi for each in report.column_drifts},
        folder=folder,
    )


def _alert_event(report: MonitoringReport, kind: str, event: str) -> AlertEvent:
    findings = report.findings_of(kind)
    return AlertEvent(
        event=event,
        cause_columns=tuple(dict.fromkeys(each.key for each in findings)),
        severity=report.severity(kind),
        sentence=report.sentence if report.sentence_is_of(kind) else findings[0].text,
        details=tuple(each.text for each in findings[:20]),
    )

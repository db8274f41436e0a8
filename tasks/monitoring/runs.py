"""A monitoring run: compare the current data of a deployed version with its reference data."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from blocks.common.errors import TerminalError
from blocks.environment import Environment
from tasks.monitoring.current import (
    CurrentData,
    count_lake_rows,
    count_log_windows,
    counts_by_span,
    ingest_log_segments,
)
from tasks.monitoring.quality import measure_label_quality
from tasks.monitoring.reference import ReferenceData, load_reference
from tasks.monitoring.reporting import write_monitoring_report, write_report_samples
from tasks.monitoring.rules.conclusion import MonitoringReport, conclude_monitoring
from tasks.monitoring.rules.drift import ColumnDrift, column_drifts, is_seasonal, persistent_findings, window_findings
from tasks.monitoring.rules.findings import Finding, MonitoringRules
from tasks.monitoring.rules.quality import QualityMetric
from tasks.monitoring.rules.report import monitoring_plot
from tasks.monitoring.rules.requests import TimeSpan, divides_week, other_windows_before, same_window_weeks_before
from tasks.shared.champion import champion_version
from tasks.shared.models import TeamModel
from tasks.shared.records import MonitoringResult
from tasks.shared.rules.refusal import Refusal

PlotFunction = Callable[[MonitoringReport, MonitoringRules], bytes | None]
"""Draws a monitoring report as a PNG; None when there is nothing to draw."""


@dataclass(frozen=True)
class MonitoringScope:
    """The data to monitor: windows of the inference log up to a time, or a data set of the lake as of a time."""

    window_end: datetime
    window_length: timedelta
    dataset: str = ""
    as_of: str = ""


def parse_end_time(text: str, now: datetime) -> datetime:
    """Parse an ISO 8601 time with a zone, and return it in UTC; `now` for an empty text.

    Raises:
        Refusal: the text is no time, or has no zone.
    """
    if not text:
        return now
    remedy = "Write a time such as 2026-11-25T06:00:00Z."
    try:
        at = datetime.fromisoformat(text)
    except ValueError as cause:
        raise Refusal("this is not a time", where="until", value=text, remedy=remedy) from cause
    if at.tzinfo is None:
        raise Refusal("the time has no zone", where="until", value=text, remedy=remedy)
    return at.astimezone(UTC)


def monitor_model(
    env: Environment,
    model: TeamModel,
    rules: MonitoringRules,
    scope: MonitoringScope,
    folder: Path,
    plot: PlotFunction = monitoring_plot,
) -> MonitoringResult:
    """Run monitoring, and write the report, the plot and the samples for Evidently into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    failures: list[Finding] = []
    version, reference, current = "", None, CurrentData("nothing")
    measured: list[QualityMetric] = []
    with failures_as_findings(failures, "reference"):
        version = deployed_version_or_refuse(env, model)
        rules = limit_windows_to_age(env, model, version, rules, scope)
        reference = load_reference(env, model, version)
    if not scope.dataset and model.spec.inference_log.enabled:
        with failures_as_findings(failures, "log"):
            ingest_log_segments(env.endpoint(), env.lake(), env.tracking(), model.spec)
    if reference is not None:
        with failures_as_findings(failures, "rows"):
            current = count_current_rows(env, model, reference, rules, scope)
    compared, found, notes = check_windows(env, reference, current, rules, scope)
    if reference is not None and current.source_sql and not scope.dataset:
        with failures_as_findings(failures, "quality"):
            measured, quality_findings, quality_notes = measure_label_quality(
                env, model, reference, current, scope.window_end, rules
            )
            found, notes = [*quality_findings, *found], [*notes, *quality_notes]
    if reference is not None and compared:
        write_report_samples(env, reference, current, compared, rules, folder)
    findings = [*found, *failures]
    if not findings and not compared:
        text = "Nothing was compared, because there are no rows."
        findings = [Finding("impossible", "rows", "", text, summary="no rows")]
    report = conclude_monitoring(
        model.spec.name,
        version or "(none)",
        findings,
        compared=compared,
        rows=current.rows_per_window,
        measured=measured,
        notes=notes,
    )
    if image := plot(report, rules):
        (folder / "monitoring-report.png").write_bytes(image)
    return write_monitoring_report(report, rules, current, reference, folder)


def deployed_version_or_refuse(env: Environment, model: TeamModel) -> str:
    """Return the deployed version according to the ledger. Raises Refusal when there is none."""
    version = champion_version(env, model.spec.name)
    if not version:
        problem = f"no version of {model.spec.name} is deployed yet, so there is nothing to monitor"
        raise Refusal(problem, where=env.name, remedy="Retrain and approve a first version.")
    return version


def limit_windows_to_age(
    env: Environment, model: TeamModel, version: str, rules: MonitoringRules, scope: MonitoringScope
) -> MonitoringRules:
    """Return the rules, limited to the windows since the version was deployed."""
    lines = env.effects().deployments(model.spec.name, env.name)
    since = max(line.at for line in lines if line.version == version and line.status == "serving")
    deployed_windows = max(1, math.ceil((scope.window_end - since) / scope.window_length))
    return replace(
        rules,
        windows=min(rules.windows, deployed_windows),
        min_breached_windows=min(rules.min_breached_windows, deployed_windows),
    )


def count_current_rows(
    env: Environment, model: TeamModel, reference: ReferenceData, rules: MonitoringRules, scope: MonitoringScope
) -> CurrentData:
    """Count the current rows by the bins of the reference."""
    version, columns = reference.version.version, reference.columns
    if scope.dataset:
        return count_lake_rows(env, model.spec, columns, rules, dataset=scope.dataset, as_of=scope.as_of)
    if not model.spec.inference_log.enabled:
        raise Refusal(
            "the inference log is off", where="inference_log.enabled", remedy="Turn it on, or monitor a data set."
        )
    return count_log_windows(
        env, model.spec, version, columns, rules, until=scope.window_end, window_length=scope.window_length
    )


def check_windows(
    env: Environment,
    reference: ReferenceData | None,
    current: CurrentData,
    rules: MonitoringRules,
    scope: MonitoringScope,
) -> tuple[list[ColumnDrift], list[Finding], list[str]]:
    """Return the compared columns of the newest window, all findings, and notes."""
    notes = list(current.notes)
    large_enough_windows = [
        window
        for window, n in zip(current.counts_by_window, current.rows_per_window, strict=True)
        if n >= rules.minimum_rows
    ]
    if reference is None or not large_enough_windows:
        return [], list(current.findings), notes
    columns = [column for column in current.columns if column.name in large_enough_windows[0]]
    compared_by_window = [column_drifts(columns, reference.counts, window, rules) for window in large_enough_windows]
    findings = persistent_findings([window_findings(compared, rules) for compared in compared_by_window], rules)
    if not scope.dataset and divides_week(scope.window_length):
        seasonal_findings = find_weekday_patterns(env, reference, current, rules, scope, findings)
        findings = [each for each in findings if each not in seasonal_findings]
        notes += [
            f"{each.column} differs, but only as always on this weekday: {each.summary}." for each in seasonal_findings
        ]
    return compared_by_window[0], [*findings, *current.findings], notes


def find_weekday_patterns(
    env: Environment,
    reference: ReferenceData,
    current: CurrentData,
    rules: MonitoringRules,
    scope: MonitoringScope,
    findings: Sequence[Finding],
) -> list[Finding]:
    """Return the findings of columns that differ only in the way in which they always differ on this weekday."""
    drifted = {finding.column for finding in findings if finding.cause == "distribution"}
    columns = [column for column in current.columns if column.name in drifted]
    if not columns:
        return []
    newest = TimeSpan(scope.window_end - scope.window_length, scope.window_end)
    same, others = same_window_weeks_before(newest), other_windows_before(newest, scope.window_length, rules.windows)
    spans = [*same, *others]
    counts = counts_by_span(env.engine(), current, reference.version.version, columns, spans)
    weekday_counts = [counts[index] for index in range(len(same)) if index in counts]
    other_counts = [window for index, window in counts.items() if index >= len(same)]
    seasonal = {
        column.name
        for column in columns
        if (now := current.counts_by_window[0].get(column.name)) is not None
        and is_seasonal(
            now,
            [window[column.name] for window in weekday_counts],
            [window[column.name] for window in other_counts],
            reference.counts[column.name],
            rules,
        )
    }
    return [finding for finding in findings if finding.cause == "distribution" and finding.column in seasonal]


@contextmanager
def failures_as_findings(findings: list[Finding], cause: str) -> Iterator[None]:
    """Turn a terminal error into a finding. A transient error is raised, so that the task is retried."""
    try:
        yield
    except (Refusal, TerminalError, json.JSONDecodeError) as refused:
        text = f"Monitoring was not possible: {str(refused).rstrip('.')}."
        findings.append(Finding("impossible", cause, "", text, severity="critical", summary=f"{cause}: {refused}"))

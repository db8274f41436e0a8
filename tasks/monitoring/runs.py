"""Look at a model at work: what it is asked and answers now, held against what it was promoted on."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from blocks.common.errors import TerminalError
from blocks.environment import Environment
from tasks.monitoring.collection import ingest_log_segments
from tasks.monitoring.current import CurrentData, column_counts_by_span, count_lake_rows, count_log_windows
from tasks.monitoring.quality import measure_label_quality
from tasks.monitoring.reference import ReferenceData, load_reference
from tasks.monitoring.rules.drift import ColumnDrift, column_drifts, is_seasonal, persistent_findings, window_findings
from tasks.monitoring.rules.findings import Finding, MonitoringRules
from tasks.monitoring.rules.judgement import (
    FINDING_EVENTS,
    MonitoringReport,
    QualityMetric,
    conclude_monitoring,
    monitoring_report_json,
)
from tasks.monitoring.rules.plot import monitoring_plot
from tasks.monitoring.rules.report import monitoring_markdown
from tasks.monitoring.rules.windows import TimeSpan, divides_week, other_windows_before, same_window_weeks_before
from tasks.monitoring.samples import write_report_samples
from tasks.shared.champion import champion_version
from tasks.shared.models import TeamModel
from tasks.shared.records import AlertEvent, MonitoringResult
from tasks.shared.rules.refusal import Refusal

PlotFunction = Callable[[MonitoringReport, MonitoringRules], bytes | None]
"""What draws a judgement as a PNG."""


@dataclass(frozen=True)
class MonitoringScope:
    """What is to be looked at: the inference log's windows up to a time, or a data set as of one."""

    window_end: datetime
    window_length: timedelta
    dataset: str = ""
    as_of: str = ""


def parse_end_time(text: str, now: datetime) -> datetime:
    """Return a time of ISO 8601 with a zone, in UTC; `now` when the text is empty. Raises Refusal for other text."""
    if not text:
        return now
    remedy = "Write a time such as 2026-11-25T06:00:00Z."
    try:
        at = datetime.fromisoformat(text)
    except ValueError as cause:
        raise Refusal("this is no time", where="until", value=text, remedy=remedy) from cause
    if at.tzinfo is None:
        raise Refusal("the time has no zone", where="until", value=text, remedy=remedy)
    return at.astimezone(UTC)


def monitor_model(
    env: Environment,
    model: TeamModel,
    rules: MonitoringRules,
    wanted: MonitoringScope,
    folder: Path,
    plot: PlotFunction = monitoring_plot,
) -> MonitoringResult:
    """Judge, and leave the report, the plot and the samples for Evidently in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    failures: list[Finding] = []
    version, reference, current = "", None, CurrentData("nothing")
    measured: list[QualityMetric] = []
    with failures_as_findings(failures, "reference"):
        version = deployed_version_or_refuse(env, model)
        rules = limit_windows_to_age(env, model, version, rules, wanted)
        reference = load_reference(env, model, version)
    if not wanted.dataset and model.spec.inference_log.enabled:
        with failures_as_findings(failures, "log"):
            ingest_log_segments(env.endpoint(), env.lake(), model.spec)
    if reference is not None:
        with failures_as_findings(failures, "rows"):
            current = count_current_rows(env, model, reference, rules, wanted)
    compared, found, notes = check_windows(env, reference, current, rules, wanted)
    if reference is not None and current.source_sql and not wanted.dataset:
        with failures_as_findings(failures, "quality"):
            measured, quality_findings, quality_notes = measure_label_quality(
                env, model, reference, current, wanted.window_end, rules
            )
            found, notes = [*quality_findings, *found], [*notes, *quality_notes]
    if reference is not None and compared:
        write_report_samples(env, reference, current, compared, rules, folder)
    findings = [*found, *failures]
    if not findings and not compared:
        text = "Nothing was compared: there are no rows."
        findings = [Finding("impossible", "rows", "", text, summary="no rows")]
    judgement = conclude_monitoring(
        model.spec.name, version or "(none)", findings, compared=compared, rows=current.rows_per_window, measured=measured,
        notes=notes, min_breached_windows=rules.min_breached_windows,
    )  # fmt: skip
    if picture := plot(judgement, rules):
        (folder / "judgement.png").write_bytes(picture)
    return write_monitoring_report(judgement, rules, current, reference, folder)


def deployed_version_or_refuse(env: Environment, model: TeamModel) -> str:
    """Return the version that serves by the ledger. Raises Refusal when none does."""
    version = champion_version(env, model.spec.name)
    if not version:
        problem = f"{model.spec.name} serves nothing yet, so there is nothing to watch"
        raise Refusal(problem, where=env.name, remedy="Retrain and approve a first version.")
    return version


def limit_windows_to_age(
    env: Environment, model: TeamModel, version: str, rules: MonitoringRules, wanted: MonitoringScope
) -> MonitoringRules:
    """Return the rules for a version that has not served for all of the windows yet: only those that it has count."""
    lines = env.effects().deployments(model.spec.name, env.name)
    since = max(line.at for line in lines if line.version == version and line.status == "serving")
    windows_served = max(1, math.ceil((wanted.window_end - since) / wanted.window_length))
    return replace(
        rules,
        windows=min(rules.windows, windows_served),
        min_breached_windows=min(rules.min_breached_windows, windows_served),
    )


def count_current_rows(
    env: Environment, model: TeamModel, reference: ReferenceData, rules: MonitoringRules, wanted: MonitoringScope
) -> CurrentData:
    """Count the rows that are to be looked at, by the reference's bins."""
    version, columns = reference.version.version, reference.columns
    if wanted.dataset:
        return count_lake_rows(env, model.spec, columns, rules, dataset=wanted.dataset, as_of=wanted.as_of)
    if not model.spec.inference_log.enabled:
        raise Refusal("the inference log is off", where="inference_log.keep", remedy="Turn it on, or name a data set.")
    return count_log_windows(
        env, model.spec, version, columns, rules, until=wanted.window_end, window_length=wanted.window_length
    )


def check_windows(
    env: Environment,
    reference: ReferenceData | None,
    current: CurrentData,
    rules: MonitoringRules,
    wanted: MonitoringScope,
) -> tuple[list[ColumnDrift], list[Finding], list[str]]:
    """Return the columns of the newest judged window, all findings, and notes."""
    notes = list(current.notes)
    large_enough_windows = [
        window
        for window, n in zip(current.counts_by_window, current.rows_per_window, strict=True)
        if n >= rules.minimum_rows
    ]
    if reference is None or not large_enough_windows:
        return [], list(current.findings), notes
    columns = [column for column in current.columns if column.name in large_enough_windows[0]]
    found = [window_findings(columns, reference.counts, window, rules) for window in large_enough_windows]
    findings = persistent_findings(found, rules)
    if not wanted.dataset and divides_week(wanted.window_length):
        seasonal_findings = [
            each for each in findings if is_weekday_pattern(env, reference, current, rules, wanted, each)
        ]
        findings = [each for each in findings if each not in seasonal_findings]
        notes += [f"{each.column} differs as it does on this weekday: {each.summary}." for each in seasonal_findings]
    compared = column_drifts(columns, reference.counts, large_enough_windows[0], rules)
    return list(compared.values()), [*findings, *current.findings], notes


def is_weekday_pattern(
    env: Environment,
    reference: ReferenceData,
    current: CurrentData,
    rules: MonitoringRules,
    wanted: MonitoringScope,
    found: Finding,
) -> bool:
    """Tell whether a column differs only as its weekday does, in every window in which it was found."""
    if found.cause != "distribution":
        return False
    column = next(each for each in current.columns if each.name == found.column)
    newest = TimeSpan(wanted.window_end - wanted.window_length, wanted.window_end)
    same, others = same_window_weeks_before(newest), other_windows_before(newest, wanted.window_length, rules.windows)
    version = reference.version.version
    counts = column_counts_by_span(env.engine(), current.files, version, column, [*same, *others])
    same_weekday_counts = [counts[place] for place in range(len(same)) if place in counts]
    other_counts = [each for place, each in counts.items() if place >= len(same)]
    now = current.counts_by_window[0].get(column.name)
    return now is not None and is_seasonal(
        column, now, same_weekday_counts, other_counts, reference.counts[column.name], rules
    )


def write_monitoring_report(
    judgement: MonitoringReport,
    rules: MonitoringRules,
    current: CurrentData,
    reference: ReferenceData | None,
    folder: Path,
) -> MonitoringResult:
    """Write the judgement for people and programs, and return what the next task has to know."""
    links = {"the version": reference.version.url} if reference else {}
    report = monitoring_markdown(judgement, rules, where=current.description, links=links)
    (folder / "judgement.json").write_text(monitoring_report_json(judgement))
    (folder / "report.md").write_text(report)
    return MonitoringResult(
        model=judgement.model,
        version=judgement.version,
        run_id=reference.version.run_id if reference else "",
        outcome=judgement.outcome,
        summary=judgement.sentence,
        rows_per_window=judgement.rows_per_window,
        alert_events=tuple(
            _alert_event(judgement, kind, event)
            for kind, event in FINDING_EVENTS.items()
            if judgement.findings_of(kind)
        ),
        cleared_events=tuple(FINDING_EVENTS[kind] for kind in judgement.cleared_kinds()),
        psi_by_column={each.column.name: each.psi for each in judgement.column_drifts},
        folder=folder,
    )


def _alert_event(judgement: MonitoringReport, kind: str, event: str) -> AlertEvent:
    findings = judgement.findings_of(kind)
    return AlertEvent(
        event=event,
        cause_columns=tuple(dict.fromkeys(each.key for each in findings)),
        severity=judgement.severity(kind),
        sentence=judgement.sentence if judgement.sentence_is_of(kind) else findings[0].text,
        details=tuple(each.text for each in findings[:20]),
    )


@contextmanager
def failures_as_findings(found: list[Finding], cause: str) -> Iterator[None]:
    """Turn what cannot be done into a finding; what may succeed in a moment is raised, and tried again."""
    try:
        yield
    except (Refusal, TerminalError, json.JSONDecodeError) as refused:
        text = f"It could not be checked: {str(refused).rstrip('.')}."
        found.append(Finding("impossible", cause, "", text, severity="critical", summary=f"{cause}: {refused}"))

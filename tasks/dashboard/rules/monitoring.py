"""The sections of a dashboard about monitoring: alerts, drift and quality over time."""

from collections.abc import Sequence

from tasks.dashboard.rules import svg
from tasks.dashboard.rules.charts import OUTCOME_MARKS, TimelineEvents, drift_chart, quality_chart
from tasks.dashboard.rules.episodes import AlertEpisode, open_episodes
from tasks.dashboard.rules.facts import DashboardData, Unknown
from tasks.dashboard.rules.parts import (
    MAX_LIST_ROWS,
    badge,
    chart_legend,
    empty_html,
    html_table,
    more_note,
    section_html,
    unknown_html,
)
from tasks.dashboard.rules.words import escape_text, time_html
from tasks.monitoring.rules.history import MonitoringRun
from tasks.shared.rules.run_outcomes import outcome_words

MAX_COLUMNS, MAX_RUNS_LISTED, MAX_METRICS, MAX_POINTS = 8, 5, 4, 200


def drift_section(facts: DashboardData) -> str:
    """Return the section of drift over time: the largest index of each run, and the columns with the most drift."""
    title = "Drift over time"
    if isinstance(facts.monitoring_runs, Unknown):
        return section_html("drift", title, unknown_html(facts.monitoring_runs), whole=True)
    if not facts.monitoring_runs:
        return section_html("drift", title, empty_html("No monitoring run yet."), whole=True)
    events, newest = timeline_events(facts), facts.monitoring_runs[-MAX_POINTS:]
    signs = [(shape, kind, _OUTCOME_LABELS[outcome]) for outcome, (shape, kind) in OUTCOME_MARKS.items()]
    signs += [("flag", "warn", "alert: a warning"), ("flag", "bad", "alert: critical")]
    chart = drift_chart(newest, events, facts.drift_threshold)
    left_out = (
        f" The chart shows the newest {len(newest)} of {len(facts.monitoring_runs):,} monitoring runs."
        if len(newest) < len(facts.monitoring_runs)
        else ""
    )
    caption = (
        '<p class="soft">Highest population stability index of any column, per monitoring run. Shaded: an open alert; '
        f"dotted line: a deployment.{left_out}</p>"
    )
    content = (
        f'{caption}{chart_legend(signs)}<div class="pair"><div>{chart}</div>'
        f"<div>{_column_table(facts.monitoring_runs, facts.drift_threshold)}</div></div>"
        f"{_newest_runs(facts.monitoring_runs)}"
    )
    return section_html("drift", title, content, whole=True)


_OUTCOME_LABELS = {
    "no_drift": "no drift",
    "drift": "drift",
    "degraded": "degraded quality",
    "not_checked": "monitoring failed",
}


def timeline_events(facts: DashboardData) -> TimelineEvents:
    """Return the alerts and releases for the time axes. Unknown ones are left out."""
    episodes = () if isinstance(facts.alerts, Unknown) else facts.alerts
    releases = () if isinstance(facts.releases, Unknown) else facts.releases
    return TimelineEvents([each for each in episodes if each.event.startswith("model.")], releases, facts.drawn_at)


def _newest_runs(runs: Sequence[MonitoringRun]) -> str:
    rows = [
        [
            time_html(run.started_at),
            outcome_pill(run.outcome),
            escape_text(run.version),
            f"{run.newest_rows:,}",
            escape_text(run.sentence),
        ]
        for run in reversed(runs[-MAX_RUNS_LISTED:])
    ]
    heads = ("time", "outcome", "version", "#rows", "summary")
    return f"<h3>Newest monitoring runs</h3>{html_table('Newest monitoring runs', heads, rows)}"


def outcome_pill(outcome: str) -> str:
    """Return the outcome of a monitoring run as a badge."""
    return badge(outcome_words(outcome), OUTCOME_MARKS.get(outcome, ("", "none"))[1])


def _column_table(runs: Sequence[MonitoringRun], threshold: float) -> str:
    measured = [run for run in runs if run.of("drift")]
    if not measured:
        return empty_html("No monitoring run has compared a column yet.")
    newest = measured[-1]
    first = sorted(newest.of("drift"), key=lambda each: -(each.value or 0.0))[:MAX_COLUMNS]
    rows = []
    for each in first:
        history = [_column_index(run, each.name) for run in measured[-30:]]
        highest = max([threshold, *(value for value in history if value is not None)])
        index = "–" if each.value is None else f"{each.value:.3f}"
        spark = svg.sparkline(history, highest, f"index of {each.name} over {len(history)} monitoring runs")
        rows.append([escape_text(each.name, 60), index, badge("drift", "warn") if each.is_finding else "", spark])
    left = len(newest.of("drift")) - len(first)
    more = f'<p class="soft">and {left:,} columns with a lower index</p>' if left > 0 else ""
    head = f"<h3>Columns with the highest index, {time_html(newest.started_at)}</h3>"
    return f"{head}{html_table('Columns with the highest index', ('column', '#index', '', 'over time'), rows)}{more}"


def _column_index(run: MonitoringRun, name: str) -> float | None:
    return next((each.value for each in run.of("drift") if each.name == name), None)


def quality_section(facts: DashboardData) -> str:
    """Return the section of each quality metric over time, with its value at promotion."""
    title = "Quality on labels that have arrived"
    if isinstance(facts.monitoring_runs, Unknown):
        return section_html("quality", title, unknown_html(facts.monitoring_runs), whole=True)
    measured = [
        each for run in facts.monitoring_runs[-MAX_POINTS:] for each in run.of("quality") if each.value is not None
    ]
    if not measured:
        text = "Unknown so far: no monitoring run found enough labels for predictions of the deployed version."
        return section_html("quality", title, empty_html(text), whole=True)
    names = list(dict.fromkeys(each.name for each in measured))
    runs, events = facts.monitoring_runs[-MAX_POINTS:], timeline_events(facts)
    charts = "".join(
        f"<div><h3>{escape_text(name)}</h3>{quality_chart(name, runs, events)}</div>" for name in names[:MAX_METRICS]
    )
    signs = chart_legend([("circle", "ok", "unchanged"), ("triangle", "bad", "worse")])
    return section_html("quality", title, f'{signs}<div class="pair">{charts}</div>', whole=True)


def alerts_section(facts: DashboardData) -> str:
    """Return the section of open alerts, earlier alerts and news."""
    episodes = facts.alerts
    if isinstance(episodes, Unknown):
        return section_html("alerts", "Alerts", unknown_html(episodes), whole=True)
    now_open = open_episodes(episodes)
    closed = sorted((each for each in episodes if not each.is_open), key=lambda each: each.begin, reverse=True)
    content = html_table("Open alerts", _ALERT_HEADS, [_alert_row(each, facts) for each in now_open[:MAX_LIST_ROWS]])
    if not now_open:
        content = f"<p>{badge('no alert is open', 'ok')}</p>"
    content += more_note(now_open, now_open[:MAX_LIST_ROWS])
    if closed:
        rows = [_alert_row(each, facts) for each in closed[:MAX_LIST_ROWS]]
        content += f"<h3>Earlier</h3>{html_table('Earlier alerts and news', _ALERT_HEADS, rows)}"
        content += more_note(closed, closed[:MAX_LIST_ROWS])
    return section_html("alerts", "Alerts", content, whole=True)


_ALERT_HEADS = ("severity", "since", "until", "event")


_SEVERITY_CLASSES = {"critical": "bad", "warning": "warn"}


def _alert_row(each: AlertEpisode, facts: DashboardData) -> list[str]:
    if each.end is None:
        state = f"acknowledged by {escape_text(each.acknowledged_by)}" if each.acknowledged_by else "not acknowledged"
        end = f"open; {state}"
    else:
        end = "–" if each.end == each.begin else time_html(each.end)
    occurrences = f" (raised {each.occurrences} times)" if each.occurrences > 1 else ""
    return [
        badge(each.severity, _SEVERITY_CLASSES.get(each.severity, "none")), time_html(each.begin), end,
        f"<span><b>{escape_text(each.title)}</b>{occurrences}: {escape_text(each.sentence)}</span>",
    ]  # fmt: skip

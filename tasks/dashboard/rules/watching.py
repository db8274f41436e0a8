"""The sections of a dashboard about watching: drift and quality over time, with the alerts on the line."""

from collections.abc import Sequence

from tasks.dashboard.rules import svg
from tasks.dashboard.rules.charts import OUTCOME_MARKS, TimelineEvents, drift_chart, quality_chart
from tasks.dashboard.rules.facts import DashboardData, Unknown
from tasks.dashboard.rules.parts import badge, chart_legend, empty_html, html_table, section_html, unknown_html
from tasks.dashboard.rules.words import escape_text, time_html
from tasks.monitoring.rules.history import MonitoringRun

MAX_COLUMNS, MAX_RUNS_LISTED, MAX_METRICS, MAX_POINTS = 8, 5, 4, 200


def drift_section(facts: DashboardData) -> str:
    """Return the furthest index of each look, the alerts, the columns that are furthest now, and the newest looks."""
    title = "Drift over time"
    if isinstance(facts.monitoring_runs, Unknown):
        return section_html("drift", title, unknown_html(facts.monitoring_runs), whole=True)
    if not facts.monitoring_runs:
        said = "Nobody has looked yet: no run of `monitor` has been kept."
        return section_html("drift", title, empty_html(said), whole=True)
    happened, shown = timeline_events(facts), facts.monitoring_runs[-MAX_POINTS:]
    signs = [(shape, kind, _OUTCOME_LABELS[outcome]) for outcome, (shape, kind) in OUTCOME_MARKS.items()]
    signs += [("flag", "warn", "alert: a warning"), ("flag", "bad", "alert: critical")]
    chart = drift_chart(shown, happened, facts.drift_threshold)
    left_out = (
        f" Shown are the newest {len(shown)} of {len(facts.monitoring_runs):,} looks."
        if len(shown) < len(facts.monitoring_runs)
        else ""
    )
    said = (
        '<p class="soft">Population stability index of the furthest column, by look. A shade is an alert while it is '
        f"open, a dotted line a release.{left_out}</p>"
    )
    content = (
        f'{said}{chart_legend(signs)}<div class="pair"><div>{chart}</div>'
        f"<div>{_column_table(facts.monitoring_runs, facts.drift_threshold)}</div></div>{_newest_runs(facts.monitoring_runs)}"
    )
    return section_html("drift", title, content, whole=True)


_OUTCOME_LABELS = {
    "Quiet": "quiet",
    "Drift": "drift",
    "Degraded": "degraded",
    "CouldNotCheck": "could not be checked",
}


def timeline_events(facts: DashboardData) -> TimelineEvents:
    """Return what is drawn on the lines of time; alerts and releases that are unknown are not drawn."""
    episodes = () if isinstance(facts.alerts, Unknown) else facts.alerts
    releases = () if isinstance(facts.releases, Unknown) else facts.releases
    return TimelineEvents([each for each in episodes if each.event.startswith("model.")], releases, facts.drawn_at)


def _newest_runs(looks: Sequence[MonitoringRun]) -> str:
    rows = [
        [
            time_html(look.started_at),
            outcome_pill(look.outcome),
            escape_text(look.version),
            f"{look.newest_rows:,}",
            escape_text(look.sentence),
        ]
        for look in reversed(looks[-MAX_RUNS_LISTED:])
    ]
    return f"<h3>Newest looks</h3>{html_table('Newest looks', ('when', 'found', 'version', '#rows', 'in words'), rows)}"


def outcome_pill(outcome: str) -> str:
    """Return the outcome of a look as a coloured word."""
    return badge(outcome, OUTCOME_MARKS.get(outcome, ("", "none"))[1])


def _column_table(looks: Sequence[MonitoringRun], counts: float) -> str:
    measured = [look for look in looks if look.of("drift")]
    if not measured:
        return empty_html("No look has compared a column yet.")
    newest = measured[-1]
    first = sorted(newest.of("drift"), key=lambda each: -(each.value or 0.0))[:MAX_COLUMNS]
    rows = []
    for each in first:
        then = [_column_index(look, each.name) for look in measured[-30:]]
        most = max([counts, *(value for value in then if value is not None)])
        index = "–" if each.value is None else f"{each.value:.3f}"
        spark = svg.sparkline(then, most, f"index of {each.name} over {len(then)} looks")
        rows.append([escape_text(each.name, 60), index, badge("drifts", "warn") if each.is_finding else "", spark])
    left = len(newest.of("drift")) - len(first)
    more = f'<p class="soft">and {left:,} more that are nearer</p>' if left > 0 else ""
    head = f"<h3>Furthest columns, {time_html(newest.started_at)}</h3>"
    return f"{head}{html_table('Furthest columns', ('column', '#index', '', 'over time'), rows)}{more}"


def _column_index(look: MonitoringRun, name: str) -> float | None:
    return next((each.value for each in look.of("drift") if each.name == name), None)


def quality_section(facts: DashboardData) -> str:
    """Return each metric on labels that arrived, over time, held against its value at promotion."""
    title = "Quality on labels that arrived"
    if isinstance(facts.monitoring_runs, Unknown):
        return section_html("quality", title, unknown_html(facts.monitoring_runs), whole=True)
    measured = [
        each for look in facts.monitoring_runs[-MAX_POINTS:] for each in look.of("quality") if each.value is not None
    ]
    if not measured:
        said = (
            "Unknown so far: no look has found enough labels of rows that the version answered after it was promoted."
        )
        return section_html("quality", title, empty_html(said), whole=True)
    names = list(dict.fromkeys(each.name for each in measured))
    charts = "".join(
        f"<div><h3>{escape_text(name)}</h3>{quality_chart(name, facts.monitoring_runs[-MAX_POINTS:], timeline_events(facts))}</div>"
        for name in names[:MAX_METRICS]
    )
    signs = chart_legend([("circle", "ok", "as at promotion"), ("triangle", "bad", "worse")])
    return section_html("quality", title, f'{signs}<div class="pair">{charts}</div>', whole=True)

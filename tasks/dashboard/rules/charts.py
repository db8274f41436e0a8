"""The charts of a dashboard: traffic, latency, drift, quality, data and cost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup

from blocks.records.deployments import Deployment
from blocks.records.traffic import TrafficInterval
from tasks.dashboard.rules import svg
from tasks.dashboard.rules.facts import AlertEpisode, CostHistory, DatasetSummary
from tasks.dashboard.rules.traffic import latency_quantile
from tasks.dashboard.rules.words import latency_text
from tasks.monitoring.rules.history import MonitoringRun
from tasks.shared.rules.run_outcomes import outcome_words

OUTCOME_MARKS = {
    "no_drift": ("circle", "ok"),
    "drift": ("diamond", "warn"),
    "degraded": ("triangle", "bad"),
    "not_checked": ("square", "none"),
}
"""The shape and CSS class of each outcome of a monitoring run."""

Point = tuple[datetime, float]
"""A time and a value."""


@dataclass(frozen=True)
class TimelineEvents:
    """The model's alerts and releases, which are drawn on every time axis."""

    alerts: Sequence[AlertEpisode]
    releases: Sequence[Deployment]
    now: datetime


def requests_chart(steps: Sequence[TrafficInterval]) -> Markup:
    """Return the requests of each step as bars: successful, refused, failed."""
    first, last, step = _step_bounds(steps)
    inside = svg.plot_area_for([first, last + step], [each.requests for each in steps])
    width = (inside.x(last + step) - inside.x(first)) / len(steps)
    parts = []
    for each in steps:
        low, left, answered = 0, inside.x(each.start), each.requests - each.client_errors - each.server_errors
        for kind, count in (("a", answered), ("warn", each.client_errors), ("bad", each.server_errors)):
            if count:
                time = f"{each.start:%d %b %H:%M} UTC, {_duration_text(step)}"
                words = f"{time}: {count:,} {_REQUEST_KINDS[kind]} of {each.requests:,}"
                parts.append(svg.bar(left + width * 0.08, width * 0.84, inside, low, low + count, kind, words))
                low += count
    total = sum(each.requests for each in steps)
    label = f"Requests in steps of {_duration_text(step)}, {total:,} in all from {first:%d %b %Y %H:%M} UTC on"
    return svg.chart(label, inside, parts)


_REQUEST_KINDS = {"a": "answered", "warn": "refused", "bad": "failed"}


def latency_chart(steps: Sequence[TrafficInterval]) -> Markup:
    """Return the median and the 95th percentile of the latency."""
    first, last, step = _step_bounds(steps)
    middle = step / 2
    lines = {
        kind: [(each.start + middle, latency_quantile(each.latency_bins, share)) for each in steps]
        for kind, share in (("a", 0.5), ("b", 0.95))
    }
    known = [value for points in lines.values() for _, value in points if value is not None]
    inside = svg.plot_area_for([first, last + step], known)
    marks = [
        svg.mark(
            inside,
            at,
            value,
            "dot",
            f"small {kind}",
            f"{at:%d %b %H:%M} UTC, {_LATENCY_NAMES[kind]}: {latency_text(value)}",
        )
        for kind, points in lines.items()
        for at, value in points
        if value is not None and len(steps) <= 60
    ]
    parts = [svg.line(inside, points, kind) for kind, points in lines.items()]
    return svg.chart("Latency in milliseconds: median and 95th percentile", inside, [*parts, *marks])


_LATENCY_NAMES = {"a": "median", "b": "95th percentile"}


def drift_chart(runs: Sequence[MonitoringRun], events: TimelineEvents, drift_threshold: float) -> Markup:
    """Return the largest drift index of each monitoring run, its threshold, and the alerts."""
    points = [(run, max_drift_index(run)) for run in runs]
    times = [run.started_at for run in runs] + [each.begin for each in events.alerts] + [events.now]
    inside = svg.plot_area_for(times, [drift_threshold * 1.5, *(value for _, value in points if value is not None)])
    parts = [
        *_timeline_marks(inside, events),
        svg.threshold_line(inside, drift_threshold, f"drift threshold {drift_threshold:g}"),
    ]
    parts.append(svg.line(inside, [(run.started_at, value) for run, value in points], "a"))
    for run, value in points:
        shape, kind = OUTCOME_MARKS.get(run.outcome, ("square", "none"))
        words = (
            f"{run.started_at:%d %b %Y %H:%M} UTC, version {run.version}: {outcome_words(run.outcome)}. {run.sentence}"
        )
        parts.append(svg.mark(inside, run.started_at, value or 0.0, shape, kind, words))
    with_findings = sum(run.outcome != "no_drift" for run in runs)
    label = (
        f"Drift over time: {len(runs)} monitoring runs, {with_findings} of them with findings; "
        f"open alerts: {sum(each.is_open for each in events.alerts)}"
    )
    return svg.chart(label, inside, parts)


def column_line(name: str, runs: Sequence[MonitoringRun], drift_threshold: float) -> Markup:
    """Return the index of a column over the monitoring runs as a small line."""
    history = [next((each.value for each in run.of("drift") if each.name == name), None) for run in runs]
    highest = max([drift_threshold, *(value for value in history if value is not None)])
    return svg.sparkline(history, highest, f"index of {name} over {len(history)} monitoring runs")


def quality_chart(metric: str, runs: Sequence[MonitoringRun], events: TimelineEvents) -> Markup:
    """Return a quality metric over time with its interval, and its value at promotion as a dashed line."""
    known = [
        (run, each) for run in runs for each in run.of("quality") if each.name == metric and each.value is not None
    ]
    values = [v for _, each in known for v in (each.value, each.lower, each.upper, each.reference) if v is not None]
    times = [run.started_at for run, _ in known] + [events.now]
    inside = svg.plot_area_for(times, values, bottom=None)
    parts = _timeline_marks(inside, events)
    parts.append(svg.line(inside, [(run.started_at, each.value) for run, each in known], "a"))
    for run, each in known:
        if each.lower is not None and each.upper is not None:
            parts.append(svg.interval_bar(inside, run.started_at, each.lower, each.upper, "a"))
        shape, kind = ("triangle", "bad") if each.is_finding else ("circle", "ok")
        words = f"{run.started_at:%d %b %Y %H:%M} UTC, version {run.version}: {metric} {each.value:.4f}"
        parts.append(svg.mark(inside, run.started_at, each.value or 0.0, shape, kind, words))
    if (value_at_promotion := known[-1][1].reference) is not None:
        parts.append(svg.threshold_line(inside, value_at_promotion, "at promotion"))
    return svg.chart(f"{metric} on labels that have arrived, with its 99 percent interval", inside, parts)


def data_chart(data: DatasetSummary, now: datetime) -> Markup:
    """Return the rows of a data set over time, with a step for each snapshot."""
    total, points = 0, []
    for each in data.snapshots:
        total += each.rows
        points.append((each.at, float(total)))
    visible_points = thin_points(points)
    inside = svg.plot_area_for([points[0][0], now], [value for _, value in points])
    marks = [
        svg.mark(inside, at, value, "dot", "small a", f"{at:%d %b %Y %H:%M} UTC: {int(value):,} rows in all")
        for at, value in visible_points
    ]
    return svg.chart(
        f"Rows of {data.name}: {total:,} in all", inside, [svg.step_line(inside, visible_points, "a"), *marks]
    )


def thin_points(points: Sequence[Point]) -> list[Point]:
    """Return about 120 evenly chosen points, including the last: more would not be visible."""
    every = -(-len(points) // 120)
    return [*points[:-1:every], *points[-1:]]


def cost_chart(costs: CostHistory) -> Markup:
    """Return the cost of each of the last twelve months as a bar, and the monthly budget as a line."""
    months = list(reversed(costs.months[:12]))
    middles = [datetime.fromisoformat(f"{each.month}-15T00:00:00+00:00") for each in months]
    half = timedelta(days=16)
    inside = svg.plot_area_for([middles[0] - half, middles[-1] + half], [costs.budget, *(each.usd for each in months)])
    width = min((svg.WIDTH - svg.LEFT - svg.RIGHT) / len(months) * 0.7, 60.0)
    parts = [
        svg.bar(
            inside.x(at) - width / 2, width, inside, 0.0, each.usd, "a", f"{each.month}: {each.usd:,.2f} US dollars"
        )
        for at, each in zip(middles, months, strict=True)
    ]
    ticks = [(at, f"{at:%b %Y}" if len(months) <= 6 else f"{at:%b}") for at in middles]
    return svg.chart(
        "US dollars per month", inside, [*parts, svg.threshold_line(inside, costs.budget, "monthly budget")], ticks
    )


def max_drift_index(run: MonitoringRun) -> float | None:
    """Return the largest drift index of a monitoring run; None without one."""
    return max((each.value for each in run.of("drift") if each.value is not None), default=None)


def _timeline_marks(inside: svg.PlotArea, events: TimelineEvents) -> list[str]:
    parts = []
    for each in events.alerts:
        end = each.end or events.now
        if end >= inside.first:
            kind = "bad" if each.severity == "critical" else "warn"
            duration = f"until {each.end:%d %b %H:%M} UTC" if each.end else "and is open"
            words = f"Alert ({each.severity}): {each.title}, from {each.begin:%d %b %Y %H:%M} UTC {duration}"
            parts.append(svg.time_band(inside, each.begin, end, kind, words))
    for release in _visible_releases(events.releases, inside):
        words = f"{release.at:%d %b %Y %H:%M} UTC: {release.action} of version {release.version}, by {release.by}"
        parts.append(svg.event_line(inside, release.at, f"v{release.version}", words))
    return parts


def _visible_releases(releases: Iterable[Deployment], inside: svg.PlotArea) -> list[Deployment]:
    """Return the newest successful releases in the chart's time range, at most 8: more would hide the line."""
    return [each for each in releases if each.status == "serving" and inside.first <= each.at <= inside.last][:8]


def _step_bounds(steps: Sequence[TrafficInterval]) -> tuple[datetime, datetime, timedelta]:
    return steps[0].start, steps[-1].start, timedelta(seconds=steps[0].interval_seconds)


def _duration_text(step: timedelta) -> str:
    hours = step / timedelta(hours=1)
    if hours >= 24:
        return "a day" if hours == 24 else f"{hours / 24:g} days"
    return "an hour" if hours == 1 else f"{hours:g} hours" if hours > 1 else f"{hours * 60:g} min"

"""The charts of a dashboard: traffic, latency, drift and quality with the alerts on the line, data, cost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.dashboard.rules import svg
from tasks.dashboard.rules.episodes import AlertEpisode
from tasks.dashboard.rules.facts import CostHistory, DatasetSummary, ReleaseSummary
from tasks.dashboard.rules.words import latency_text
from tasks.monitoring.rules.history import MonitoringRun
from tasks.monitoring.rules.traffic import RequestStep

OUTCOME_MARKS = {
    "Quiet": ("circle", "ok"),
    "Drift": ("diamond", "warn"),
    "Degraded": ("triangle", "bad"),
    "CouldNotCheck": ("square", "none"),
}
"""Shape and class of each outcome of a look."""

Point = tuple[datetime, float]
"""A time and a value."""


@dataclass(frozen=True)
class TimelineEvents:
    """What is drawn on every line of time: alerts, and releases."""

    alerts: Sequence[AlertEpisode]
    releases: Sequence[ReleaseSummary]
    now: datetime


def requests_chart(stretches: Sequence[RequestStep]) -> str:
    """Return the requests of each step as bars: answered, refused, failed."""
    first, last, step = _step_bounds(stretches)
    inside = svg.plot_area_for([first, last + step], [each.requests for each in stretches])
    width = (inside.x(last + step) - inside.x(first)) / len(stretches)
    parts = []
    for each in stretches:
        low, left = 0, inside.x(each.start)
        for kind, found in (("a", each.answered), ("warn", each.client_errors), ("bad", each.server_errors)):
            if found:
                words = f"{each.start:%d %b %H:%M} UTC, {_duration_text(step)}: {found:,} {_REQUEST_KINDS[kind]} of {each.requests:,}"
                parts.append(svg.bar(left + width * 0.08, width * 0.84, inside, low, low + found, kind, words))
                low += found
    total = sum(each.requests for each in stretches)
    label = f"Requests in steps of {_duration_text(step)}, {total:,} in all from {first:%d %b %Y %H:%M} UTC on"
    return svg.chart(label, inside, parts)


_REQUEST_KINDS = {"a": "answered", "warn": "refused", "bad": "failed"}


def latency_chart(stretches: Sequence[RequestStep]) -> str:
    """Return the median and the 95th percentile of the answers' times, where there were any."""
    first, last, step = _step_bounds(stretches)
    middle = step / 2
    lines = {
        kind: [(each.start + middle, each.quantile(share)) for each in stretches]
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
        if value is not None and len(stretches) <= 60
    ]
    parts = [svg.line(inside, points, kind) for kind, points in lines.items()]
    return svg.chart("Milliseconds of an answer: median and 95th percentile", inside, [*parts, *marks])


_LATENCY_NAMES = {"a": "median", "b": "95th percentile"}


def drift_chart(runs: Sequence[MonitoringRun], events: TimelineEvents, drift_threshold: float) -> str:
    """Return the furthest column's index of each look, the level from which it counts, and the alerts on the line."""
    points = [(look, max_drift_index(look)) for look in runs]
    times = [look.started_at for look in runs] + [each.begin for each in events.alerts] + [events.now]
    inside = svg.plot_area_for(times, [drift_threshold * 1.5, *(value for _, value in points if value is not None)])
    parts = [
        *_timeline_marks(inside, events),
        svg.threshold_line(inside, drift_threshold, f"drift from {drift_threshold:g} on"),
    ]
    parts.append(svg.line(inside, [(look.started_at, value) for look, value in points], "a"))
    for look, value in points:
        shape, kind = OUTCOME_MARKS.get(look.outcome, ("square", "none"))
        words = f"{look.started_at:%d %b %Y %H:%M} UTC, version {look.version}: {look.outcome}. {look.sentence}"
        parts.append(svg.mark(inside, look.started_at, value or 0.0, shape, kind, words))
    found = sum(look.outcome != "Quiet" for look in runs)
    label = (
        f"Drift over time: {len(runs)} looks, {found} of them not quiet; "
        f"{sum(each.is_open for each in events.alerts)} alerts are open"
    )
    return svg.chart(label, inside, parts)


def quality_chart(metric: str, looks: Sequence[MonitoringRun], happened: TimelineEvents) -> str:
    """Return a metric on labels that arrived, with its interval, and its value at promotion as a dashed line."""
    known = [
        (look, each) for look in looks for each in look.of("quality") if each.name == metric and each.value is not None
    ]
    values = [v for _, each in known for v in (each.value, each.lower, each.upper, each.reference) if v is not None]
    times = [look.started_at for look, _ in known] + [happened.now]
    inside = svg.plot_area_for(times, values, bottom=None)
    parts = _timeline_marks(inside, TimelineEvents(happened.alerts, happened.releases, happened.now))
    parts.append(svg.line(inside, [(look.started_at, each.value) for look, each in known], "a"))
    for look, each in known:
        if each.lower is not None and each.upper is not None:
            parts.append(svg.interval_bar(inside, look.started_at, each.lower, each.upper, "a"))
        shape, kind = ("triangle", "bad") if each.is_finding else ("circle", "ok")
        words = f"{look.started_at:%d %b %Y %H:%M} UTC, version {look.version}: {metric} {each.value:.4f}"
        parts.append(svg.mark(inside, look.started_at, each.value or 0.0, shape, kind, words))
    if (value_at_promotion := known[-1][1].reference) is not None:
        parts.append(svg.threshold_line(inside, value_at_promotion, "at promotion"))
    return svg.chart(f"{metric} on rows whose labels arrived, with its 99 percent interval", inside, parts)


def data_chart(data: DatasetSummary, now: datetime) -> str:
    """Return the rows of a data set over time: each snapshot adds some."""
    total, points = 0, []
    for each in data.snapshots:
        total += each.rows
        points.append((each.at, float(total)))
    shown = thin_points(points)
    inside = svg.plot_area_for([points[0][0], now], [value for _, value in points])
    marks = [
        svg.mark(inside, at, value, "dot", "small a", f"{at:%d %b %Y %H:%M} UTC: {int(value):,} rows in all")
        for at, value in shown
    ]
    return svg.chart(f"Rows of {data.name}: {total:,} by now", inside, [svg.step_line(inside, shown, "a"), *marks])


def thin_points(points: Sequence[Point], max_points: int = 120) -> list[Point]:
    """Return at most about so many points, evenly chosen, the last one always: more would not be seen."""
    every = -(-len(points) // max_points)
    return [*points[:-1:every], *points[-1:]]


def cost_chart(costs: CostHistory) -> str:
    """Return the cost of each of the last twelve months as a bar, and the budget of a month as a line."""
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
        "US dollars by month", inside, [*parts, svg.threshold_line(inside, costs.budget, "budget of a month")], ticks
    )


def max_drift_index(look: MonitoringRun) -> float | None:
    """Return the largest index of drift that a look measured; None when it measured none."""
    return max((each.value for each in look.of("drift") if each.value is not None), default=None)


def _timeline_marks(inside: svg.PlotArea, happened: TimelineEvents) -> list[str]:
    parts = []
    for each in happened.alerts:
        end = each.end or happened.now
        if each.event.startswith("model.") and end >= inside.first:
            kind = "bad" if each.severity == "critical" else "warn"
            lasted = f"until {each.end:%d %b %H:%M} UTC" if each.end else "and is open"
            words = f"Alert ({each.severity}): {each.title}, from {each.begin:%d %b %Y %H:%M} UTC {lasted}"
            parts.append(svg.time_band(inside, each.begin, end, kind, words))
    for release in _visible_releases(happened.releases, inside):
        words = f"{release.at:%d %b %Y %H:%M} UTC: {release.action} of version {release.version}, by {release.actor}"
        parts.append(svg.event_line(inside, release.at, f"v{release.version}", words))
    return parts


def _visible_releases(releases: Iterable[ReleaseSummary], inside: svg.PlotArea) -> list[ReleaseSummary]:
    """Return the newest releases that went well and lie in the frame; more than a few would hide the line."""
    return [each for each in releases if each.status == "serving" and inside.first <= each.at <= inside.last][:8]


def _step_bounds(stretches: Sequence[RequestStep]) -> tuple[datetime, datetime, timedelta]:
    return stretches[0].start, stretches[-1].start, timedelta(seconds=stretches[0].interval_seconds)


def _duration_text(step: timedelta) -> str:
    hours = step / timedelta(hours=1)
    if hours >= 24:
        return "a day" if hours == 24 else f"{hours / 24:g} days"
    return "an hour" if hours == 1 else f"{hours:g} hours" if hours > 1 else f"{hours * 60:g} min"

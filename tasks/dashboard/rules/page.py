"""A dashboard as one self-contained HTML file, and the list of all dashboards."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.dashboard.rules.episodes import open_episodes
from tasks.dashboard.rules.facts import DashboardData, DeployedVersionSummary, Unknown
from tasks.dashboard.rules.monitoring import alerts_section, drift_section, outcome_pill, quality_section
from tasks.dashboard.rules.parts import CONTENT_SECURITY_POLICY, STYLE, badge, empty_html, html_table, tile_html
from tasks.dashboard.rules.sections import (
    cost_section,
    data_section,
    schedule_section,
    serving_section,
    traffic_section,
)
from tasks.dashboard.rules.traffic import RequestStep, merge_steps
from tasks.dashboard.rules.words import escape_text, latency_text, percent_text, relative_time, time_html

_UNKNOWN_HTML = '<span class="unknown">unknown</span>'


@dataclass(frozen=True)
class DashboardEntry:
    """An entry of the list: a model, its state in one sentence, and when its page was drawn."""

    model: str
    headline: str
    drawn_at: datetime


def dashboard_html(facts: DashboardData) -> str:
    """Return the page of one model."""
    sections = (
        serving_section, alerts_section, drift_section, quality_section, traffic_section, data_section, cost_section,
        schedule_section,
    )  # fmt: skip
    links = [
        f'<a href="{escape_text(url, 2000)}">{escape_text(name)}</a>'
        for name, url in facts.links.items()
        if _is_web_url(url)
    ]
    about = [
        f"environment {escape_text(facts.environment)}",
        f"owner {escape_text(facts.owner)}",
        f"drawn {time_html(facts.drawn_at)}",
    ]
    head = (
        f'<header><h1>{escape_text(facts.model)}</h1><p>{escape_text(facts.description)}</p><p class="soft">'
        f'{" · ".join([*about, *links])}</p><p class="said">{escape_text(status_sentence(facts), 500)}</p></header>'
    )
    inside = "".join(make(facts) for make in sections)
    body = f'<div class="tiles">{_tiles(facts)}</div><div class="grid-of">{inside}</div>'
    return _html_document(f"{facts.model} · Ratchet dashboard", f"{head}<main>{body}</main>{_FOOTER}")


_FOOTER = (
    "<footer>Times are UTC. This page is updated after each monitoring run, deployment and rollback. It has no "
    'script and loads nothing. <a href="index.html">All models</a></footer>'
)


def dashboards_index_html(listed: Iterable[DashboardEntry]) -> str:
    """Return the list of all dashboards, by name."""
    rows = [
        [
            f'<a href="{escape_text(each.model)}.html">{escape_text(each.model)}</a>',
            escape_text(each.headline, 500),
            time_html(each.drawn_at),
        ]
        for each in sorted(listed, key=lambda each: each.model)
    ]
    content = (
        html_table("Dashboards", ("model", "state", "drawn"), rows)
        if rows
        else empty_html("There is no dashboard yet.")
    )
    head = "<header><h1>Dashboards</h1><p>One per model.</p></header>"
    return _html_document("Ratchet dashboards", f"{head}<main><section>{content}</section></main>")


def status_sentence(facts: DashboardData) -> str:
    """Return the state of the model in one sentence."""
    return f"{_deployed_sentence(facts)}; {_last_monitoring_sentence(facts)}; {_open_alerts(facts)}."


def _deployed_sentence(facts: DashboardData) -> str:
    if isinstance(facts.deployed, Unknown):
        return "The deployed version is unknown"
    if facts.deployed is None:
        return "No version is deployed yet"
    release, reported = facts.deployed.release, facts.deployed.endpoint_version
    differs = isinstance(reported, str) and reported != release.version
    but = f", but the endpoint reports {f'version {reported}' if reported else 'no version'}" if differs else ""
    return f"Version {release.version} is deployed{but}"


def _last_monitoring_sentence(facts: DashboardData) -> str:
    if isinstance(facts.monitoring_runs, Unknown):
        return "the monitoring history is unknown"
    if not facts.monitoring_runs:
        return "no monitoring run yet"
    last = facts.monitoring_runs[-1]
    outcome = _OUTCOME_PHRASES.get(last.outcome, f"ended as {last.outcome}")
    deployed = facts.deployed.release.version if isinstance(facts.deployed, DeployedVersionSummary) else last.version
    of_version = "" if last.version == deployed else f" of version {last.version}"
    return f"the last monitoring run{of_version}, {relative_time(last.started_at, facts.drawn_at)}, {outcome}"


_OUTCOME_PHRASES = {
    "no_drift": "found no drift",
    "drift": "found drift",
    "degraded": "found degraded quality",
    "not_checked": "failed",
}


def _open_alerts(facts: DashboardData) -> str:
    if isinstance(facts.alerts, Unknown):
        return "the alerts are unknown"
    number = len(open_episodes(facts.alerts))
    return f"{number} alerts are open" if number > 1 else "1 alert is open" if number else "no alert is open"


def _tiles(facts: DashboardData) -> str:
    requests, errors, latency = _traffic_tiles(facts)
    first = f"{_version_tile(facts)}{_monitoring_tile(facts)}{_alert_tile(facts)}"
    return f"{first}{requests}{errors}{latency}{_cost_tile(facts)}"


def _version_tile(facts: DashboardData) -> str:
    if isinstance(facts.deployed, Unknown):
        return tile_html("Version", _UNKNOWN_HTML)
    if facts.deployed is None:
        return tile_html("Version", "none", "not deployed yet")
    release = facts.deployed.release
    return tile_html("Version", escape_text(release.version), f"deployed {relative_time(release.at, facts.drawn_at)}")


def _monitoring_tile(facts: DashboardData) -> str:
    if isinstance(facts.monitoring_runs, Unknown) or not facts.monitoring_runs:
        return tile_html(
            "Last monitoring run",
            *((_UNKNOWN_HTML,) if isinstance(facts.monitoring_runs, Unknown) else ("none", "run `monitor`")),
        )
    last = facts.monitoring_runs[-1]
    return tile_html(
        "Last monitoring run",
        outcome_pill(last.outcome),
        f"{relative_time(last.started_at, facts.drawn_at)}, version {escape_text(last.version)}",
    )


def _alert_tile(facts: DashboardData) -> str:
    if isinstance(facts.alerts, Unknown):
        return tile_html("Open alerts", _UNKNOWN_HTML)
    episodes = open_episodes(facts.alerts)
    kind = "bad" if any(each.severity == "critical" for each in episodes) else "warn"
    worst = escape_text(episodes[0].title) if episodes else "no open alerts"
    return tile_html("Open alerts", badge(str(len(episodes)), kind if episodes else "ok"), worst)


def _traffic_tiles(facts: DashboardData) -> tuple[str, str, str]:
    names = ("Requests, 24 hours", "Errors, 24 hours", "Latency (p95), 24 hours")
    if isinstance(facts.traffic, Unknown):
        return (
            tile_html(names[0], _UNKNOWN_HTML),
            tile_html(names[1], _UNKNOWN_HTML),
            tile_html(names[2], _UNKNOWN_HTML),
        )
    day = _last_day(facts.traffic.steps, facts.drawn_at)
    if day is None or not day.requests:
        none = "no traffic"
        return tile_html(names[0], none), tile_html(names[1], "–", none), tile_html(names[2], "–", none)
    requests = tile_html(names[0], f"{day.requests:,}", f"since {time_html(day.start)}")
    if not facts.traffic.has_errors_and_latency:
        return (
            requests,
            tile_html(names[1], _UNKNOWN_HTML, "not counted here"),
            tile_html(names[2], _UNKNOWN_HTML, "not counted here"),
        )
    counts = f"{day.server_errors:,} failed, {day.client_errors:,} refused"
    errors = tile_html(names[1], percent_text(day.server_errors + day.client_errors, day.requests), counts)
    return (
        requests,
        errors,
        tile_html(names[2], latency_text(day.quantile(0.95)), f"median {latency_text(day.quantile(0.5))}"),
    )


def _last_day(steps: Iterable[RequestStep], now: datetime) -> RequestStep | None:
    recent = [each for each in steps if each.start + timedelta(seconds=each.interval_seconds) > now - timedelta(days=1)]
    return merge_steps(recent)


def _cost_tile(facts: DashboardData) -> str:
    name = "Cost this month"
    if isinstance(facts.costs, Unknown):
        return tile_html(name, _UNKNOWN_HTML)
    month = f"{facts.drawn_at:%Y-%m}"
    now = next((each for each in facts.costs.months if each.month == month), None)
    budget = f"of {facts.costs.budget:,.2f} USD"
    return (
        tile_html(name, "none", f"none logged, {budget}")
        if now is None
        else tile_html(name, f"{now.usd:,.2f} USD", budget)
    )


def _is_web_url(url: str) -> bool:
    """Return whether an address is an http(s) address. Other links could run code."""
    return url.startswith(("http://", "https://"))


def _html_document(title: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape_text(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_SECURITY_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<style>{STYLE}</style></head><body>{body}</body></html>\n"
    )

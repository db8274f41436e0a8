"""A dashboard as one HTML file that asks nothing of anyone, and the list of all of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.dashboard.rules.episodes import open_ones
from tasks.dashboard.rules.facts import Facts, Serving, Unknown
from tasks.dashboard.rules.parts import nothing, pill, table, tile
from tasks.dashboard.rules.sections import (
    alerts_section,
    cost_section,
    data_section,
    schedule_section,
    serving_section,
    traffic_section,
)
from tasks.dashboard.rules.style import POLICY, STYLE
from tasks.dashboard.rules.watching import drift_section, outcome_pill, quality_section
from tasks.dashboard.rules.words import ago, milliseconds, moment, share, text
from tasks.monitoring.rules.traffic import Stretch, pooled

_UNKNOWN = '<span class="unknown">unknown</span>'


@dataclass(frozen=True)
class Listed:
    """A line of the list: a model's page, what it says in one sentence, and when it was drawn."""

    model: str
    headline: str
    drawn_at: datetime


def page(facts: Facts) -> str:
    """Return the page of one model."""
    sections = (
        serving_section, alerts_section, drift_section, quality_section, traffic_section, data_section, cost_section,
        schedule_section,
    )  # fmt: skip
    links = [f'<a href="{text(url, 2000)}">{text(name)}</a>' for name, url in facts.links.items() if _web(url)]
    about = [f"environment {text(facts.environment)}", f"owner {text(facts.owner)}", f"drawn {moment(facts.drawn_at)}"]
    head = (
        f'<header><h1>{text(facts.model)}</h1><p>{text(facts.description)}</p><p class="soft">'
        f'{" · ".join([*about, *links])}</p><p class="said">{text(headline(facts), 500)}</p></header>'
    )
    inside = "".join(make(facts) for make in sections)
    body = f'<div class="tiles">{_tiles(facts)}</div><div class="grid-of">{inside}</div>'
    return _document(f"{facts.model} · Ratchet dashboard", f"{head}<main>{body}</main>{_FOOTER}")


_FOOTER = (
    "<footer>Times are UTC. This page is drawn anew by every look at the model, deployment and rollback; it holds no "
    'script and loads nothing. <a href="index.html">All models</a></footer>'
)


def index(listed: Iterable[Listed]) -> str:
    """Return the list of all dashboards, by name."""
    rows = [
        [f'<a href="{text(each.model)}.html">{text(each.model)}</a>', text(each.headline, 500), moment(each.drawn_at)]
        for each in sorted(listed, key=lambda each: each.model)
    ]
    content = table("Dashboards", ("model", "in words", "drawn"), rows) if rows else nothing("None has been drawn yet.")
    head = "<header><h1>Dashboards</h1><p>One for each model.</p></header>"
    return _document("Ratchet dashboards", f"{head}<main><section>{content}</section></main>")


def headline(facts: Facts) -> str:
    """Return the state of the model in one sentence."""
    return f"{_what_serves(facts)}; {_last_look(facts)}; {_open_alerts(facts)}."


def _what_serves(facts: Facts) -> str:
    if isinstance(facts.serving, Unknown):
        return "What serves is unknown"
    if facts.serving is None:
        return "Nothing serves yet"
    release, answers = facts.serving.release, facts.serving.answers
    wrong = isinstance(answers, str) and answers != release.version
    but = f", but the endpoint answers with {f'version {answers}' if answers else 'nothing'}" if wrong else ""
    return f"Version {release.version} serves{but}"


def _last_look(facts: Facts) -> str:
    if isinstance(facts.looks, Unknown):
        return "what the last look found is unknown"
    if not facts.looks:
        return "nobody has looked at its traffic yet"
    last = facts.looks[-1]
    found = _FOUND.get(last.outcome, f"found it {last.outcome}")
    serves = facts.serving.release.version if isinstance(facts.serving, Serving) else last.version
    at = "" if last.version == serves else f" at version {last.version}"
    return f"the last look{at}, {ago(last.at, facts.drawn_at)}, {found}"


_FOUND = {
    "Quiet": "was quiet",
    "Drift": "found drift",
    "Degraded": "found it degraded",
    "CouldNotCheck": "could not check it",
}


def _open_alerts(facts: Facts) -> str:
    if isinstance(facts.episodes, Unknown):
        return "its alerts are unknown"
    number = len(open_ones(facts.episodes))
    return f"{number} alerts are open" if number > 1 else "1 alert is open" if number else "no alert is open"


def _tiles(facts: Facts) -> str:
    requests, errors, latency = _traffic_tiles(facts)
    return (
        f"{_version_tile(facts)}{_look_tile(facts)}{_alert_tile(facts)}{requests}{errors}{latency}{_cost_tile(facts)}"
    )


def _version_tile(facts: Facts) -> str:
    if isinstance(facts.serving, Unknown):
        return tile("Version", _UNKNOWN)
    if facts.serving is None:
        return tile("Version", "none", "nothing serves yet")
    release = facts.serving.release
    return tile("Version", text(release.version), f"serves since {ago(release.at, facts.drawn_at)}")


def _look_tile(facts: Facts) -> str:
    if isinstance(facts.looks, Unknown) or not facts.looks:
        return tile("Last look", *((_UNKNOWN,) if isinstance(facts.looks, Unknown) else ("none", "watch_drift looks")))
    last = facts.looks[-1]
    return tile(
        "Last look", outcome_pill(last.outcome), f"{ago(last.at, facts.drawn_at)}, version {text(last.version)}"
    )


def _alert_tile(facts: Facts) -> str:
    if isinstance(facts.episodes, Unknown):
        return tile("Open alerts", _UNKNOWN)
    found = open_ones(facts.episodes)
    kind = "bad" if any(each.severity == "critical" for each in found) else "warn"
    worst = text(found[0].title) if found else "nothing is amiss that is known"
    return tile("Open alerts", pill(str(len(found)), kind if found else "ok"), worst)


def _traffic_tiles(facts: Facts) -> tuple[str, str, str]:
    names = ("Requests, 24 hours", "Errors, 24 hours", "Latency (p95), 24 hours")
    if isinstance(facts.traffic, Unknown):
        return tile(names[0], _UNKNOWN), tile(names[1], _UNKNOWN), tile(names[2], _UNKNOWN)
    day = _last_day(facts.traffic.stretches, facts.drawn_at)
    if day is None or not day.requests:
        none = "no traffic"
        return tile(names[0], none), tile(names[1], "–", none), tile(names[2], "–", none)
    asked = tile(names[0], f"{day.requests:,}", f"since {moment(day.start)}")
    if not facts.traffic.counted:
        return asked, tile(names[1], _UNKNOWN, "not counted here"), tile(names[2], _UNKNOWN, "not counted here")
    wrong = f"{day.failed:,} failed, {day.refused:,} refused"
    errors = tile(names[1], share(day.failed + day.refused, day.requests), wrong)
    return asked, errors, tile(names[2], milliseconds(day.quantile(0.95)), f"median {milliseconds(day.quantile(0.5))}")


def _last_day(stretches: Iterable[Stretch], now: datetime) -> Stretch | None:
    recent = [each for each in stretches if each.start + timedelta(seconds=each.seconds) > now - timedelta(days=1)]
    return pooled(recent)


def _cost_tile(facts: Facts) -> str:
    name = "Cost this month"
    if isinstance(facts.costs, Unknown):
        return tile(name, _UNKNOWN)
    month = f"{facts.drawn_at:%Y-%m}"
    now = next((each for each in facts.costs.months if each.month == month), None)
    budget = f"of {facts.costs.budget:,.2f} USD"
    return tile(name, "none", f"none logged, {budget}") if now is None else tile(name, f"{now.usd:,.2f} USD", budget)


def _web(url: str) -> bool:
    """Whether an address is one of the web: a link must not run anything."""
    return url.startswith(("http://", "https://"))


def _document(title: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<style>{STYLE}</style></head><body>{body}</body></html>\n"
    )

"""The sections of a dashboard about serving: what serves and why, alerts, traffic, data, cost, schedule."""

from collections.abc import Sequence
from datetime import datetime

from tasks.dashboard.rules.charts import cost_chart, data_chart, latency_chart, requests_chart
from tasks.dashboard.rules.episodes import AlertEpisode, open_episodes
from tasks.dashboard.rules.facts import (
    DashboardData,
    DatasetSummary,
    DecisionSummary,
    DeployedVersionSummary,
    ReleaseSummary,
    Unknown,
)
from tasks.dashboard.rules.parts import badge, chart_legend, empty_html, html_table, section_html, unknown_html
from tasks.dashboard.rules.parts import key_value_table as fact_table
from tasks.dashboard.rules.words import bytes_text, escape_text, latency_text, percent_text, relative_time, time_html
from tasks.monitoring.rules.traffic import merge_steps

MAX_LIST_ROWS = 12
"""So many lines of a list are shown, the newest; how many more there are is said."""


def serving_section(facts: DashboardData) -> str:
    """Return what serves, since when, by whose approval, and what served before."""
    return section_html("serving", "What serves", _deployed_version(facts) + _releases(facts), whole=True)


def _deployed_version(facts: DashboardData) -> str:
    found = facts.deployed
    if isinstance(found, Unknown):
        return unknown_html(found)
    if found is None:
        return empty_html("Nothing serves yet: no version was ever approved and deployed.")
    release = found.release
    by = f"taken back to by {escape_text(release.actor)}" if release.action == "rollback" else "deployed"
    rows = [
        ("Version", f"<b>{escape_text(release.version)}</b> {_endpoint_badge(found)}"),
        ("Since", f"{time_html(release.at)} ({relative_time(release.at, facts.drawn_at)}), {by}"),
        ("Approved by", _deciders(found.decisions)),
        ("Asked for by", _text_or_unknown(found.requested_by)),
        ("Digest", f"<code>{escape_text(found.digest)}</code>"),
    ]
    if release.action == "rollback":
        rows.insert(2, ("Taken back because", escape_text(release.reason or "no reason is recorded")))
    return fact_table(rows)


def _endpoint_badge(found: DeployedVersionSummary) -> str:
    if isinstance(found.endpoint_version, Unknown):
        return (
            badge("the endpoint was not reached", "none")
            + f' <span class="soft">{escape_text(found.endpoint_version.reason)}</span>'
        )
    if found.endpoint_version == found.release.version:
        return badge("the endpoint answers with it", "ok")
    return badge(f"the endpoint answers with {found.endpoint_version or 'nothing'}", "bad")


def _deciders(deciders: tuple[DecisionSummary, ...] | Unknown) -> str:
    if isinstance(deciders, Unknown):
        return _text_or_unknown(deciders)
    if not deciders:
        return '<span class="unknown">No decision is recorded.</span>'
    return "<br>".join(_decider(each) for each in deciders)


def _decider(each: DecisionSummary) -> str:
    verdict = "" if each.approved else "rejected by "
    proof = "name verified" if each.authenticated else "name not verified"
    who = (
        f"<b>{verdict}{escape_text(each.by)}</b>, {time_html(each.at)}: {escape_text(each.reason or 'no reason given')}"
    )
    return f'{who} <span class="soft">({escape_text(each.channel)}, {proof})</span>'


def _text_or_unknown(value: str | Unknown) -> str:
    if isinstance(value, Unknown):
        return f'<span class="unknown">Unknown: {escape_text(value.reason)}</span>'
    return escape_text(value)


def _releases(facts: DashboardData) -> str:
    if isinstance(facts.releases, Unknown):
        return "" if isinstance(facts.deployed, Unknown) else unknown_html(facts.releases)
    if not facts.releases:
        return ""
    shown = facts.releases[:MAX_LIST_ROWS]
    rows = [
        [
            time_html(each.at),
            escape_text(each.version),
            _release_badge(each),
            escape_text(each.actor or "–"),
            escape_text(each.reason or "–"),
        ]
        for each in shown
    ]
    heads = ("when", "version", "what", "by", "why")
    return f"<h3>Releases and rollbacks</h3>{html_table('Releases', heads, rows)}{_more_note(facts.releases, shown)}"


def _release_badge(each: ReleaseSummary) -> str:
    if each.status != "serving":
        return badge(f"{each.action} failed", "bad")
    return badge("rolled back to", "warn") if each.action == "rollback" else badge("deployed", "ok")


def alerts_section(facts: DashboardData) -> str:
    """Return what is amiss now, and what happened last."""
    found = facts.alerts
    if isinstance(found, Unknown):
        return section_html("alerts", "Alerts", unknown_html(found), whole=True)
    now_open = open_episodes(found)
    over = sorted((each for each in found if not each.is_open), key=lambda each: each.begin, reverse=True)
    content = html_table("Open alerts", _ALERT_HEADS, [_alert_row(each, facts) for each in now_open[:MAX_LIST_ROWS]])
    if not now_open:
        content = f"<p>{badge('no alert is open', 'ok')}</p>"
    content += _more_note(now_open, now_open[:MAX_LIST_ROWS])
    if over:
        rows = [_alert_row(each, facts) for each in over[:MAX_LIST_ROWS]]
        content += f"<h3>Before</h3>{html_table('Earlier alerts and news', _ALERT_HEADS, rows)}"
        content += _more_note(over, over[:MAX_LIST_ROWS])
    return section_html("alerts", "Alerts", content, whole=True)


_ALERT_HEADS = ("severity", "since", "until", "what")
_SEVERITY_CLASSES = {"critical": "bad", "warning": "warn"}


def _alert_row(each: AlertEpisode, facts: DashboardData) -> list[str]:
    if each.end is None:
        held = (
            f"looked after by {escape_text(each.acknowledged_by)}"
            if each.acknowledged_by
            else "nobody has acknowledged it"
        )
        end = f"open; {held}"
    else:
        end = "–" if each.end == each.begin else time_html(each.end)
    seen = f" (seen {each.occurrences} times)" if each.occurrences > 1 else ""
    return [
        badge(each.severity, _SEVERITY_CLASSES.get(each.severity, "none")), time_html(each.begin), end,
        f"<span><b>{escape_text(each.title)}</b>{seen}: {escape_text(each.sentence)}</span>",
    ]  # fmt: skip


def traffic_section(facts: DashboardData) -> str:
    """Return requests, errors and latency over time, and what the inference log holds of each version."""
    return section_html("traffic", "Traffic, errors and latency", f"{_traffic(facts)}{_logged(facts)}", whole=True)


def _traffic(facts: DashboardData) -> str:
    found = facts.traffic
    if isinstance(found, Unknown):
        return unknown_html(found)
    whole = merge_steps(found.steps)
    if whole is None or not whole.requests:
        return empty_html("No traffic yet: no request has been counted in the last 31 days.")
    said = f"{whole.requests:,} requests since {time_html(whole.start)}"
    if not found.has_errors_and_latency:
        return f"<p>{said}.</p>{requests_chart(found.steps)}{unknown_html(_NOT_COUNTED)}"
    middle, slow = latency_text(whole.quantile(0.5)), latency_text(whole.quantile(0.95))
    said += f"; refused {whole.client_errors:,} ({percent_text(whole.client_errors, whole.requests)})"
    said += f", failed {whole.server_errors:,} ({percent_text(whole.server_errors, whole.requests)})"
    said += f"; answers took {middle} in the median, {slow} at the 95th percentile"
    signs = chart_legend(
        [("bar", "a", "answered"), ("bar", "warn", "refused (4xx)"), ("bar", "bad", "failed (5xx, or too late)")]
    )
    times = chart_legend([("circle", "a", "median"), ("circle", "b", "95th percentile")])
    return (
        f'<p>{said}.</p><div class="pair"><div><h3>Requests</h3>{signs}{requests_chart(found.steps)}</div>'
        f"<div><h3>Milliseconds of an answer</h3>{times}{latency_chart(found.steps)}</div></div>"
    )


_NOT_COUNTED = Unknown(
    "refused and failed requests and latency were not counted; these are the requests of the inference log"
)


def _logged(facts: DashboardData) -> str:
    title = "<h3>Rows in the inference log, last 31 days</h3>"
    if isinstance(facts.inference_log, Unknown):
        return title + unknown_html(facts.inference_log)
    if not facts.inference_log:
        return title + empty_html("None. A look at the model collects what its server logged.")
    rows = [
        [escape_text(each.version), f"{each.requests:,}", f"{each.rows:,}", time_html(each.newest)]
        for each in facts.inference_log[:MAX_LIST_ROWS]
    ]
    heads = ("version", "#requests", "#rows", "newest")
    return f"{title}{html_table('Rows logged', heads, rows)}{_more_note(facts.inference_log, facts.inference_log[:MAX_LIST_ROWS])}"


def data_section(facts: DashboardData) -> str:
    """Return how much data there is, and when it landed."""
    if isinstance(facts.data, Unknown):
        return section_html("data", "Data volume", unknown_html(facts.data))
    if not facts.data:
        return section_html("data", "Data volume", empty_html("No rows have landed yet."))
    return section_html("data", "Data volume", "".join(_dataset_block(each, facts) for each in facts.data))


def _dataset_block(each: DatasetSummary, facts: DashboardData) -> str:
    head = f"<h3>{escape_text(each.name)}: {escape_text(each.use)}</h3>"
    if not each.snapshots:
        return head + empty_html("No rows have landed yet.")
    stored = f"{bytes_text(each.bytes)} stored" if isinstance(each.bytes, int) else _text_or_unknown(each.bytes)
    total = sum(landing.rows for landing in each.snapshots)
    snapshots = f"{len(each.snapshots):,} snapshot{'s' * (len(each.snapshots) != 1)}"
    said = f"<p><b>{total:,}</b> rows in {snapshots}, {stored}; newest {time_html(each.snapshots[-1].at)}.</p>"
    newest = each.snapshots[: -1 - 4 : -1]
    rows = [[time_html(landing.at), f"+{landing.rows:,}", escape_text(landing.source, 120)] for landing in newest]
    landed = html_table("Newest snapshots", ("landed", "#rows", "from"), rows)
    return f"{head}{said}{data_chart(each, facts.drawn_at)}{landed}"


def cost_section(facts: DashboardData) -> str:
    """Return what the model cost by month, against its budget."""
    found = facts.costs
    if isinstance(found, Unknown):
        return section_html("cost", "Cost", unknown_html(found))
    if not found.months:
        budget = f"Its budget is {found.budget:,.2f} USD a month."
        return section_html("cost", "Cost", empty_html(f"No run has logged what it cost. {budget}"))
    rows = [
        [escape_text(each.month), f"{each.usd:,.2f}", f"{each.runs:,}", f"{each.pending_runs:,}"]
        for each in found.months[:MAX_LIST_ROWS]
    ]
    heads = ("month", "#US dollars", "#runs", "#counted at worst")
    free = not any(each.usd for each in found.months)
    said = "<p>Everything so far ran on machines that are not billed by use.</p>" if free else cost_chart(found)
    budget = f"<p>Budget: {found.budget:,.2f} USD a month.</p>"
    return section_html("cost", "Cost", f"{said}{html_table('Cost by month', heads, rows)}{budget}")


def schedule_section(facts: DashboardData) -> str:
    """Return what starts next by itself."""
    found = facts.schedule
    if isinstance(found, Unknown):
        return section_html("schedule", "Next on schedule", unknown_html(found), whole=True)
    if not found:
        return section_html(
            "schedule", "Next on schedule", empty_html("Nothing of this model is on a schedule."), whole=True
        )
    rows = [
        [f"<code>{escape_text(each.deployment)}</code>", _next_run(each.at, each.paused, facts)]
        for each in found[:MAX_LIST_ROWS]
    ]
    return section_html(
        "schedule", "Next on schedule", html_table("Next runs", ("deployment", "next run"), rows), whole=True
    )


def _next_run(at: datetime | None, paused: bool, facts: DashboardData) -> str:
    if paused:
        return badge("paused", "warn")
    if at is None:
        return '<span class="unknown">no run is planned yet</span>'
    return f"{time_html(at)} ({relative_time(at, facts.drawn_at)})"


def _more_note(found: Sequence[object], shown: Sequence[object]) -> str:
    more = len(found) - len(shown)
    return f'<p class="soft">and {more:,} more</p>' if more > 0 else ""

"""The sections of a dashboard about the deployed version, traffic, data, cost and schedule."""

from datetime import datetime

from tasks.dashboard.rules.charts import cost_chart, data_chart, latency_chart, requests_chart
from tasks.dashboard.rules.facts import (
    DashboardData,
    DatasetSummary,
    DecisionSummary,
    DeployedVersionSummary,
    ReleaseSummary,
    Unknown,
)
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
from tasks.dashboard.rules.parts import key_value_table as fact_table
from tasks.dashboard.rules.traffic import merge_steps
from tasks.dashboard.rules.words import bytes_text, escape_text, latency_text, percent_text, relative_time, time_html


def serving_section(facts: DashboardData) -> str:
    """Return the section of the deployed version, its approval, and the deployment history."""
    return section_html("serving", "Deployed version", _deployed_version(facts) + _releases(facts), whole=True)


def _deployed_version(facts: DashboardData) -> str:
    deployed = facts.deployed
    if isinstance(deployed, Unknown):
        return unknown_html(deployed)
    if deployed is None:
        return empty_html("No version is deployed yet: none was approved and deployed.")
    release = deployed.release
    by = f"rolled back by {escape_text(release.actor)}" if release.action == "rollback" else "deployed"
    rows = [
        ("Version", f"<b>{escape_text(release.version)}</b> {_endpoint_badge(deployed)}"),
        ("Since", f"{time_html(release.at)} ({relative_time(release.at, facts.drawn_at)}), {by}"),
        ("Approved by", _deciders(deployed.decisions)),
        ("Requested by", _text_or_unknown(deployed.requested_by)),
        ("Digest", f"<code>{escape_text(deployed.digest)}</code>"),
    ]
    if release.action == "rollback":
        rows.insert(2, ("Reason for the rollback", escape_text(release.reason or "no reason is recorded")))
    return fact_table(rows)


def _endpoint_badge(deployed: DeployedVersionSummary) -> str:
    if isinstance(deployed.endpoint_version, Unknown):
        return (
            badge("the endpoint was not reached", "none")
            + f' <span class="soft">{escape_text(deployed.endpoint_version.reason)}</span>'
        )
    if deployed.endpoint_version == deployed.release.version:
        return badge("confirmed by the endpoint", "ok")
    return badge(f"the endpoint reports {deployed.endpoint_version or 'no version'}", "bad")


def _deciders(deciders: tuple[DecisionSummary, ...] | Unknown) -> str:
    if isinstance(deciders, Unknown):
        return _text_or_unknown(deciders)
    if not deciders:
        return '<span class="unknown">No decision is recorded.</span>'
    return "<br>".join(_decider(each) for each in deciders)


def _decider(each: DecisionSummary) -> str:
    verdict = "" if each.approved else "rejected by "
    proof = "name verified" if each.authenticated else "name not verified"
    decision = (
        f"<b>{verdict}{escape_text(each.by)}</b>, {time_html(each.at)}: {escape_text(each.reason or 'no reason given')}"
    )
    return f'{decision} <span class="soft">({escape_text(each.channel)}, {proof})</span>'


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
    heads = ("time", "version", "action", "by", "reason")
    return f"<h3>Releases and rollbacks</h3>{html_table('Releases', heads, rows)}{more_note(facts.releases, shown)}"


def _release_badge(each: ReleaseSummary) -> str:
    if each.status != "serving":
        return badge(f"{each.action} failed", "bad")
    return badge("rolled back to", "warn") if each.action == "rollback" else badge("deployed", "ok")


def traffic_section(facts: DashboardData) -> str:
    """Return the section of requests, errors and latency over time, and of the inference log."""
    return section_html("traffic", "Traffic, errors and latency", f"{_traffic(facts)}{_logged(facts)}", whole=True)


def _traffic(facts: DashboardData) -> str:
    history = facts.traffic
    if isinstance(history, Unknown):
        return unknown_html(history)
    whole = merge_steps(history.steps)
    if whole is None or not whole.requests:
        return empty_html("No traffic: no request was counted in the last 31 days.")
    sentence = f"{whole.requests:,} requests since {time_html(whole.start)}"
    if not history.has_errors_and_latency:
        return f"<p>{sentence}.</p>{requests_chart(history.steps)}{unknown_html(_NOT_COUNTED)}"
    middle, slow = latency_text(whole.quantile(0.5)), latency_text(whole.quantile(0.95))
    sentence += f"; refused {whole.client_errors:,} ({percent_text(whole.client_errors, whole.requests)})"
    sentence += f", failed {whole.server_errors:,} ({percent_text(whole.server_errors, whole.requests)})"
    sentence += f"; latency {middle} (median), {slow} (95th percentile)"
    signs = chart_legend(
        [("bar", "a", "successful"), ("bar", "warn", "refused (4xx)"), ("bar", "bad", "failed (5xx or timeout)")]
    )
    times = chart_legend([("circle", "a", "median"), ("circle", "b", "95th percentile")])
    return (
        f'<p>{sentence}.</p><div class="pair"><div><h3>Requests</h3>{signs}{requests_chart(history.steps)}</div>'
        f"<div><h3>Latency in milliseconds</h3>{times}{latency_chart(history.steps)}</div></div>"
    )


_NOT_COUNTED = Unknown(
    "refused requests, failed requests and latencies were not counted; the chart shows the inference log"
)


def _logged(facts: DashboardData) -> str:
    title = "<h3>Inference log, last 31 days</h3>"
    if isinstance(facts.inference_log, Unknown):
        return title + unknown_html(facts.inference_log)
    if not facts.inference_log:
        return title + empty_html("None. A monitoring run ingests the server's inference log.")
    rows = [
        [escape_text(each.version), f"{each.requests:,}", f"{each.rows:,}", time_html(each.newest)]
        for each in facts.inference_log[:MAX_LIST_ROWS]
    ]
    heads = ("version", "#requests", "#rows", "newest")
    more = more_note(facts.inference_log, facts.inference_log[:MAX_LIST_ROWS])
    return f"{title}{html_table('Inference log', heads, rows)}{more}"


def data_section(facts: DashboardData) -> str:
    """Return the section of the model's data sets and their growth."""
    if isinstance(facts.data, Unknown):
        return section_html("data", "Data volume", unknown_html(facts.data))
    if not facts.data:
        return section_html("data", "Data volume", empty_html("No rows were ingested yet."))
    return section_html("data", "Data volume", "".join(_dataset_block(each, facts) for each in facts.data))


def _dataset_block(each: DatasetSummary, facts: DashboardData) -> str:
    head = f"<h3>{escape_text(each.name)}: {escape_text(each.use)}</h3>"
    if not each.snapshots:
        return head + empty_html("No rows were ingested yet.")
    stored = f"{bytes_text(each.bytes)} stored" if isinstance(each.bytes, int) else _text_or_unknown(each.bytes)
    total = sum(landing.rows for landing in each.snapshots)
    snapshots = f"{len(each.snapshots):,} snapshot{'s' * (len(each.snapshots) != 1)}"
    sentence = f"<p><b>{total:,}</b> rows in {snapshots}, {stored}; newest {time_html(each.snapshots[-1].at)}.</p>"
    newest = each.snapshots[: -1 - 4 : -1]
    rows = [[time_html(landing.at), f"+{landing.rows:,}", escape_text(landing.source, 120)] for landing in newest]
    table = html_table("Newest snapshots", ("ingested", "#rows", "source"), rows)
    return f"{head}{sentence}{data_chart(each, facts.drawn_at)}{table}"


def cost_section(facts: DashboardData) -> str:
    """Return the section of the cost per month, with the budget."""
    costs = facts.costs
    if isinstance(costs, Unknown):
        return section_html("cost", "Cost", unknown_html(costs))
    if not costs.months:
        budget = f"Its budget is {costs.budget:,.2f} USD a month."
        return section_html("cost", "Cost", empty_html(f"No run has logged its cost. {budget}"))
    rows = [
        [escape_text(each.month), f"{each.usd:,.2f}", f"{each.runs:,}", f"{each.pending_runs:,}"]
        for each in costs.months[:MAX_LIST_ROWS]
    ]
    heads = ("month", "#US dollars", "#runs", "#with worst-case cost")
    free = not any(each.usd for each in costs.months)
    chart = "<p>All runs used machines that are not billed by use.</p>" if free else cost_chart(costs)
    budget = f"<p>Budget: {costs.budget:,.2f} USD a month.</p>"
    return section_html("cost", "Cost", f"{chart}{html_table('Cost per month', heads, rows)}{budget}")


def schedule_section(facts: DashboardData) -> str:
    """Return the section of scheduled runs."""
    runs = facts.schedule
    if isinstance(runs, Unknown):
        return section_html("schedule", "Scheduled runs", unknown_html(runs), whole=True)
    if not runs:
        return section_html(
            "schedule", "Scheduled runs", empty_html("No deployment of this model has a schedule."), whole=True
        )
    rows = [
        [f"<code>{escape_text(each.deployment)}</code>", _next_run(each.at, each.paused, facts)]
        for each in runs[:MAX_LIST_ROWS]
    ]
    return section_html(
        "schedule", "Scheduled runs", html_table("Next runs", ("deployment", "next run"), rows), whole=True
    )


def _next_run(at: datetime | None, paused: bool, facts: DashboardData) -> str:
    if paused:
        return badge("paused", "warn")
    if at is None:
        return '<span class="unknown">no run is planned yet</span>'
    return f"{time_html(at)} ({relative_time(at, facts.drawn_at)})"

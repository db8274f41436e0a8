"""The sections of a dashboard about serving: what serves and why, alerts, traffic, data, cost, schedule."""

from collections.abc import Sequence
from datetime import datetime

from tasks.dashboard.rules.charts import cost_chart, data_chart, latency_chart, requests_chart
from tasks.dashboard.rules.episodes import Episode, open_ones
from tasks.dashboard.rules.facts import DataSet, Decider, Facts, Release, Serving, Unknown
from tasks.dashboard.rules.parts import facts as fact_table
from tasks.dashboard.rules.parts import key, nothing, pill, section, table, unknown
from tasks.dashboard.rules.words import ago, milliseconds, moment, share, size, text
from tasks.monitoring.rules.traffic import pooled

MOST_LINES = 12
"""So many lines of a list are shown, the newest; how many more there are is said."""


def serving_section(facts: Facts) -> str:
    """Return what serves, since when, by whose approval, and what served before."""
    return section("serving", "What serves", _serving(facts) + _releases(facts), whole=True)


def _serving(facts: Facts) -> str:
    found = facts.serving
    if isinstance(found, Unknown):
        return unknown(found)
    if found is None:
        return nothing("Nothing serves yet: no version was ever approved and deployed.")
    release = found.release
    by = f"taken back to by {text(release.by)}" if release.action == "rollback" else "deployed"
    rows = [
        ("Version", f"<b>{text(release.version)}</b> {_answers(found)}"),
        ("Since", f"{moment(release.at)} ({ago(release.at, facts.drawn_at)}), {by}"),
        ("Approved by", _deciders(found.deciders)),
        ("Asked for by", _plain(found.requested_by)),
        ("Digest", f"<code>{text(found.digest)}</code>"),
    ]
    if release.action == "rollback":
        rows.insert(2, ("Taken back because", text(release.reason or "no reason is recorded")))
    return fact_table(rows)


def _answers(found: Serving) -> str:
    if isinstance(found.answers, Unknown):
        return pill("the endpoint was not reached", "none") + f' <span class="soft">{text(found.answers.reason)}</span>'
    if found.answers == found.release.version:
        return pill("the endpoint answers with it", "ok")
    return pill(f"the endpoint answers with {found.answers or 'nothing'}", "bad")


def _deciders(deciders: tuple[Decider, ...] | Unknown) -> str:
    if isinstance(deciders, Unknown):
        return _plain(deciders)
    if not deciders:
        return '<span class="unknown">No decision is recorded.</span>'
    return "<br>".join(_decider(each) for each in deciders)


def _decider(each: Decider) -> str:
    verdict = "" if each.approved else "rejected by "
    proof = "name verified" if each.authenticated else "name not verified"
    who = f"<b>{verdict}{text(each.by)}</b>, {moment(each.at)}: {text(each.reason or 'no reason given')}"
    return f'{who} <span class="soft">({text(each.channel)}, {proof})</span>'


def _plain(value: str | Unknown) -> str:
    if isinstance(value, Unknown):
        return f'<span class="unknown">Unknown: {text(value.reason)}</span>'
    return text(value)


def _releases(facts: Facts) -> str:
    if isinstance(facts.releases, Unknown):
        return "" if isinstance(facts.serving, Unknown) else unknown(facts.releases)
    if not facts.releases:
        return ""
    shown = facts.releases[:MOST_LINES]
    rows = [
        [moment(each.at), text(each.version), _ended(each), text(each.by or "–"), text(each.reason or "–")]
        for each in shown
    ]
    heads = ("when", "version", "what", "by", "why")
    return f"<h3>Releases and rollbacks</h3>{table('Releases', heads, rows)}{_left_out(facts.releases, shown)}"


def _ended(each: Release) -> str:
    if each.status != "serving":
        return pill(f"{each.action} failed", "bad")
    return pill("rolled back to", "warn") if each.action == "rollback" else pill("deployed", "ok")


def alerts_section(facts: Facts) -> str:
    """Return what is amiss now, and what happened last."""
    found = facts.episodes
    if isinstance(found, Unknown):
        return section("alerts", "Alerts", unknown(found), whole=True)
    now_open = open_ones(found)
    over = sorted((each for each in found if not each.lasts), key=lambda each: each.begin, reverse=True)
    content = table("Open alerts", _ALERT_HEADS, [_alert(each, facts) for each in now_open[:MOST_LINES]])
    if not now_open:
        content = f"<p>{pill('no alert is open', 'ok')}</p>"
    content += _left_out(now_open, now_open[:MOST_LINES])
    if over:
        rows = [_alert(each, facts) for each in over[:MOST_LINES]]
        content += f"<h3>Before</h3>{table('Earlier alerts and news', _ALERT_HEADS, rows)}"
        content += _left_out(over, over[:MOST_LINES])
    return section("alerts", "Alerts", content, whole=True)


_ALERT_HEADS = ("severity", "since", "until", "what")
_KINDS = {"critical": "bad", "warning": "warn"}


def _alert(each: Episode, facts: Facts) -> list[str]:
    if each.end is None:
        held = f"looked after by {text(each.acknowledged_by)}" if each.acknowledged_by else "nobody has acknowledged it"
        end = f"open; {held}"
    else:
        end = "–" if each.end == each.begin else moment(each.end)
    seen = f" (seen {each.seen} times)" if each.seen > 1 else ""
    return [
        pill(each.severity, _KINDS.get(each.severity, "none")), moment(each.begin), end,
        f"<span><b>{text(each.title)}</b>{seen}: {text(each.sentence)}</span>",
    ]  # fmt: skip


def traffic_section(facts: Facts) -> str:
    """Return requests, errors and latency over time, and what the inference log holds of each version."""
    return section("traffic", "Traffic, errors and latency", f"{_traffic(facts)}{_logged(facts)}", whole=True)


def _traffic(facts: Facts) -> str:
    found = facts.traffic
    if isinstance(found, Unknown):
        return unknown(found)
    whole = pooled(found.stretches)
    if whole is None or not whole.requests:
        return nothing("No traffic yet: no request has been counted in the last 31 days.")
    said = f"{whole.requests:,} requests since {moment(whole.start)}"
    if not found.counted:
        return f"<p>{said}.</p>{requests_chart(found.stretches)}{unknown(_NOT_COUNTED)}"
    middle, slow = milliseconds(whole.quantile(0.5)), milliseconds(whole.quantile(0.95))
    said += f"; refused {whole.refused:,} ({share(whole.refused, whole.requests)})"
    said += f", failed {whole.failed:,} ({share(whole.failed, whole.requests)})"
    said += f"; answers took {middle} in the median, {slow} at the 95th percentile"
    signs = key(
        [("bar", "a", "answered"), ("bar", "warn", "refused (4xx)"), ("bar", "bad", "failed (5xx, or too late)")]
    )
    times = key([("circle", "a", "median"), ("circle", "b", "95th percentile")])
    return (
        f'<p>{said}.</p><div class="pair"><div><h3>Requests</h3>{signs}{requests_chart(found.stretches)}</div>'
        f"<div><h3>Milliseconds of an answer</h3>{times}{latency_chart(found.stretches)}</div></div>"
    )


_NOT_COUNTED = Unknown(
    "refused and failed requests and latency were not counted; these are the requests of the inference log"
)


def _logged(facts: Facts) -> str:
    title = "<h3>Rows in the inference log, last 31 days</h3>"
    if isinstance(facts.logged, Unknown):
        return title + unknown(facts.logged)
    if not facts.logged:
        return title + nothing("None. A look at the model collects what its server logged.")
    rows = [
        [text(each.version), f"{each.requests:,}", f"{each.rows:,}", moment(each.newest)]
        for each in facts.logged[:MOST_LINES]
    ]
    heads = ("version", "#requests", "#rows", "newest")
    return f"{title}{table('Rows logged', heads, rows)}{_left_out(facts.logged, facts.logged[:MOST_LINES])}"


def data_section(facts: Facts) -> str:
    """Return how much data there is, and when it landed."""
    if isinstance(facts.data, Unknown):
        return section("data", "Data volume", unknown(facts.data))
    if not facts.data:
        return section("data", "Data volume", nothing("No rows have landed yet."))
    return section("data", "Data volume", "".join(_data_set(each, facts) for each in facts.data))


def _data_set(each: DataSet, facts: Facts) -> str:
    head = f"<h3>{text(each.name)}: {text(each.use)}</h3>"
    if not each.landings:
        return head + nothing("No rows have landed yet.")
    stored = f"{size(each.bytes)} stored" if isinstance(each.bytes, int) else _plain(each.bytes)
    total = sum(landing.rows for landing in each.landings)
    snapshots = f"{len(each.landings):,} snapshot{'s' * (len(each.landings) != 1)}"
    said = f"<p><b>{total:,}</b> rows in {snapshots}, {stored}; newest {moment(each.landings[-1].at)}.</p>"
    newest = each.landings[: -1 - 4 : -1]
    rows = [[moment(landing.at), f"+{landing.rows:,}", text(landing.source, 120)] for landing in newest]
    landed = table("Newest snapshots", ("landed", "#rows", "from"), rows)
    return f"{head}{said}{data_chart(each, facts.drawn_at)}{landed}"


def cost_section(facts: Facts) -> str:
    """Return what the model cost by month, against its budget."""
    found = facts.costs
    if isinstance(found, Unknown):
        return section("cost", "Cost", unknown(found))
    if not found.months:
        budget = f"Its budget is {found.budget:,.2f} USD a month."
        return section("cost", "Cost", nothing(f"No run has logged what it cost. {budget}"))
    rows = [
        [text(each.month), f"{each.usd:,.2f}", f"{each.runs:,}", f"{each.open:,}"] for each in found.months[:MOST_LINES]
    ]
    heads = ("month", "#US dollars", "#runs", "#counted at worst")
    free = not any(each.usd for each in found.months)
    said = "<p>Everything so far ran on machines that are not billed by use.</p>" if free else cost_chart(found)
    budget = f"<p>Budget: {found.budget:,.2f} USD a month.</p>"
    return section("cost", "Cost", f"{said}{table('Cost by month', heads, rows)}{budget}")


def schedule_section(facts: Facts) -> str:
    """Return what starts next by itself."""
    found = facts.schedule
    if isinstance(found, Unknown):
        return section("schedule", "Next on schedule", unknown(found), whole=True)
    if not found:
        return section("schedule", "Next on schedule", nothing("Nothing of this model is on a schedule."), whole=True)
    rows = [
        [f"<code>{text(each.deployment)}</code>", _next(each.at, each.paused, facts)] for each in found[:MOST_LINES]
    ]
    return section("schedule", "Next on schedule", table("Next runs", ("deployment", "next run"), rows), whole=True)


def _next(at: datetime | None, paused: bool, facts: Facts) -> str:
    if paused:
        return pill("paused", "warn")
    if at is None:
        return '<span class="unknown">no run is planned yet</span>'
    return f"{moment(at)} ({ago(at, facts.drawn_at)})"


def _left_out(found: Sequence[object], shown: Sequence[object]) -> str:
    more = len(found) - len(shown)
    return f'<p class="soft">and {more:,} more</p>' if more > 0 else ""

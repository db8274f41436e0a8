"""The sections of a dashboard about watching: drift and quality over time, with the alerts on the line."""

from collections.abc import Sequence

from tasks.dashboard.rules import svg
from tasks.dashboard.rules.charts import SHAPES, Happened, drift_chart, quality_chart
from tasks.dashboard.rules.facts import Facts, Unknown
from tasks.dashboard.rules.parts import key, nothing, pill, section, table, unknown
from tasks.dashboard.rules.words import moment, text
from tasks.monitoring.rules.history import Look

MOST_COLUMNS, MOST_LOOKS, MOST_METRICS, MOST_POINTS = 8, 5, 4, 200


def drift_section(facts: Facts) -> str:
    """Return the furthest index of each look, the alerts, the columns that are furthest now, and the newest looks."""
    title = "Drift over time"
    if isinstance(facts.looks, Unknown):
        return section("drift", title, unknown(facts.looks), whole=True)
    if not facts.looks:
        said = "Nobody has looked yet: no run of watch_drift has been kept."
        return section("drift", title, nothing(said), whole=True)
    happened, shown = happened_of(facts), facts.looks[-MOST_POINTS:]
    signs = [(shape, kind, _WORDS[outcome]) for outcome, (shape, kind) in SHAPES.items()]
    signs += [("flag", "warn", "alert: a warning"), ("flag", "bad", "alert: critical")]
    chart = drift_chart(shown, happened, facts.index_counts)
    left_out = (
        f" Shown are the newest {len(shown)} of {len(facts.looks):,} looks." if len(shown) < len(facts.looks) else ""
    )
    said = (
        '<p class="soft">Population stability index of the furthest column, by look. A shade is an alert while it is '
        f"open, a dotted line a release.{left_out}</p>"
    )
    content = (
        f'{said}{key(signs)}<div class="pair"><div>{chart}</div>'
        f"<div>{_columns(facts.looks, facts.index_counts)}</div></div>{_newest_looks(facts.looks)}"
    )
    return section("drift", title, content, whole=True)


_WORDS = {
    "Quiet": "quiet",
    "Drift": "drift",
    "Degraded": "degraded",
    "CouldNotCheck": "could not be checked",
}


def happened_of(facts: Facts) -> Happened:
    """Return what is drawn on the lines of time; alerts and releases that are unknown are not drawn."""
    episodes = () if isinstance(facts.episodes, Unknown) else facts.episodes
    releases = () if isinstance(facts.releases, Unknown) else facts.releases
    return Happened([each for each in episodes if each.event.startswith("model.")], releases, facts.drawn_at)


def _newest_looks(looks: Sequence[Look]) -> str:
    rows = [
        [moment(look.at), outcome_pill(look.outcome), text(look.version), f"{look.newest_rows:,}", text(look.sentence)]
        for look in reversed(looks[-MOST_LOOKS:])
    ]
    return f"<h3>Newest looks</h3>{table('Newest looks', ('when', 'found', 'version', '#rows', 'in words'), rows)}"


def outcome_pill(outcome: str) -> str:
    """Return the outcome of a look as a coloured word."""
    return pill(outcome, SHAPES.get(outcome, ("", "none"))[1])


def _columns(looks: Sequence[Look], counts: float) -> str:
    measured = [look for look in looks if look.of("drift")]
    if not measured:
        return nothing("No look has compared a column yet.")
    newest = measured[-1]
    first = sorted(newest.of("drift"), key=lambda each: -(each.value or 0.0))[:MOST_COLUMNS]
    rows = []
    for each in first:
        then = [_index(look, each.name) for look in measured[-30:]]
        most = max([counts, *(value for value in then if value is not None)])
        index = "–" if each.value is None else f"{each.value:.3f}"
        spark = svg.sparkline(then, most, f"index of {each.name} over {len(then)} looks")
        rows.append([text(each.name, 60), index, pill("drifts", "warn") if each.found else "", spark])
    left = len(newest.of("drift")) - len(first)
    more = f'<p class="soft">and {left:,} more that are nearer</p>' if left > 0 else ""
    head = f"<h3>Furthest columns, {moment(newest.at)}</h3>"
    return f"{head}{table('Furthest columns', ('column', '#index', '', 'over time'), rows)}{more}"


def _index(look: Look, name: str) -> float | None:
    return next((each.value for each in look.of("drift") if each.name == name), None)


def quality_section(facts: Facts) -> str:
    """Return each metric on labels that arrived, over time, held against its value at promotion."""
    title = "Quality on labels that arrived"
    if isinstance(facts.looks, Unknown):
        return section("quality", title, unknown(facts.looks), whole=True)
    measured = [each for look in facts.looks[-MOST_POINTS:] for each in look.of("quality") if each.value is not None]
    if not measured:
        said = (
            "Unknown so far: no look has found enough labels of rows that the version answered after it was promoted."
        )
        return section("quality", title, nothing(said), whole=True)
    names = list(dict.fromkeys(each.name for each in measured))
    charts = "".join(
        f"<div><h3>{text(name)}</h3>{quality_chart(name, facts.looks[-MOST_POINTS:], happened_of(facts))}</div>"
        for name in names[:MOST_METRICS]
    )
    signs = key([("circle", "ok", "as at promotion"), ("triangle", "bad", "worse")])
    return section("quality", title, f'{signs}<div class="pair">{charts}</div>', whole=True)

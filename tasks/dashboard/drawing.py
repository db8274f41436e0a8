"""Draw the dashboard of a model and the list of all dashboards, and create the flow run's artifact."""

from base64 import b64encode
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, ValidationError

from blocks.environment import Environment
from runtime.files import write_text_atomically
from runtime.foreign_text import Markdown, markdown_code
from tasks.dashboard.facts import gather_dashboard_data
from tasks.dashboard.rules import charts, words
from tasks.dashboard.rules.facts import DashboardData, DeployedVersionSummary, Unknown, open_episodes
from tasks.dashboard.rules.traffic import latency_quantile, merge_steps
from tasks.shared.models import load_model
from tasks.shared.records import DashboardResult
from tasks.shared.reports import create_link_artifact, create_markdown_artifact
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.run_outcomes import outcome_words

TEMPLATES = Path(__file__).parent / "templates"
MAX_POINTS = 200
"""The largest number of monitoring runs in a chart: the newest."""


class DashboardSummary(BaseModel):
    """The entry of a dashboard in the list, stored beside its page: the model's state, and when it was drawn."""

    model_config = ConfigDict(extra="forbid")

    model: str
    summary: str
    drawn_at: datetime


def write_dashboard(env: Environment, model: str, now: datetime) -> DashboardResult:
    """Write the page of a model and the list of all pages, each atomically.

    Raises:
        Refusal: there is no such model, or its name is reserved.
        OSError: the folder cannot be written.
    """
    if model == "index":
        raise Refusal(
            "the name is reserved for the list of all pages", where="models/", value=model, remedy="Rename the model."
        )
    facts, folder = gather_dashboard_data(env, load_model(model), now), env.dashboards_folder
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = facts.model
    listed = DashboardSummary(model=name, summary=status_sentence(facts), drawn_at=now)
    write_text_atomically(folder / f"{name}.html", dashboard_html(facts))
    write_text_atomically(folder / f"{name}.json", listed.model_dump_json())
    write_text_atomically(folder / "index.html", dashboards_index_html(read_summaries(folder)))
    url = env.dashboards.url.rstrip("/")
    return DashboardResult(
        model=name, headline=listed.summary, path=folder / f"{name}.html", url=f"{url}/{name}" if url else ""
    )


def read_summaries(folder: Path) -> list[DashboardSummary]:
    """Return the dashboards in a folder. An entry that cannot be read is left out until it is drawn again."""
    entries = []
    for path in sorted(folder.glob("[!.]*.json")):
        with suppress(OSError, ValidationError):
            read = DashboardSummary.model_validate_json(path.read_bytes())
            if path.with_suffix(".html").exists() and read.model == path.stem:
                entries.append(read)
    return entries


def create_dashboard_artifact(drawn: DashboardResult) -> None:
    """Create the flow run's artifact: a link to the page, or its path when there is no server."""
    key = f"dashboard-{drawn.model.replace('_', '-')}"
    if drawn.url:
        create_link_artifact(
            key=key, link=drawn.url, link_text=f"Dashboard of {drawn.model}", description=drawn.headline
        )
    else:
        page = Markdown("{}\n\n{}").format(drawn.headline, markdown_code(drawn.path))
        create_markdown_artifact(key=key, markdown=page, description=drawn.headline)


def dashboard_html(facts: DashboardData) -> str:
    """Return the page of one model."""
    runs = () if isinstance(facts.monitoring_runs, Unknown) else facts.monitoring_runs
    alerts = () if isinstance(facts.alerts, Unknown) else facts.alerts
    releases = () if isinstance(facts.releases, Unknown) else facts.releases
    steps = () if isinstance(facts.traffic, Unknown) else facts.traffic.steps
    drift_runs = [run for run in runs if run.of("drift")]
    yesterday = facts.drawn_at - timedelta(days=1)
    measured = [each for run in runs[-MAX_POINTS:] for each in run.of("quality") if each.value is not None]
    return _render(
        "dashboard.html",
        facts=facts,
        status=status_sentence(facts),
        ago=partial(words.relative_time, now=facts.drawn_at),
        open_alerts=open_episodes(alerts),
        closed_alerts=sorted((each for each in alerts if not each.is_open), key=lambda each: each.begin, reverse=True),
        newest_runs=runs[-MAX_POINTS:],
        events=charts.TimelineEvents(
            [each for each in alerts if each.event.startswith("model.")], releases, facts.drawn_at
        ),
        drift_runs=drift_runs[-30:],
        columns=sorted(drift_runs[-1].of("drift") if drift_runs else (), key=lambda each: -(each.value or 0.0)),
        quality_metrics=list(dict.fromkeys(each.name for each in measured)),
        all_traffic=merge_steps(steps),
        last_day=merge_steps(
            each for each in steps if each.start + timedelta(seconds=each.interval_seconds) > yesterday
        ),
    )


def dashboards_index_html(listed: Iterable[DashboardSummary]) -> str:
    """Return the list of all dashboards, by name."""
    return _render("index.html", listed=sorted(listed, key=lambda each: each.model))


def _render(template: str, **values: Any) -> str:
    return _templates().get_template(template).render(**values).lstrip()


@cache
def _templates() -> jinja2.Environment:
    """Return the templates. They escape every text, and shorten it; a missing value is an error."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: words.escape_text(value) if type(value) is str else value,
    )
    templates.tests["unknown"] = lambda part: isinstance(part, Unknown)
    templates.filters |= {
        "bytes": words.bytes_text,
        "latency": words.latency_text,
        "outcome_words": outcome_words,
        "quantile": latency_quantile,
        "shown": words.escape_text,
    }
    style = (TEMPLATES / "style.css").read_text()
    templates.globals |= {
        "column_line": charts.column_line,
        "cost_chart": charts.cost_chart,
        "data_chart": charts.data_chart,
        "drift_chart": charts.drift_chart,
        "latency_chart": charts.latency_chart,
        "outcome_marks": charts.OUTCOME_MARKS,
        "percent": words.percent_text,
        "quality_chart": charts.quality_chart,
        "requests_chart": charts.requests_chart,
        "style": Markup(style),  # noqa: S704  (our own file)
        "style_digest": b64encode(sha256(style.encode()).digest()).decode(),
    }
    return templates


def status_sentence(facts: DashboardData) -> str:
    """Return the state of the model in one sentence."""
    return f"{_deployed_sentence(facts)}; {_last_monitoring_sentence(facts)}; {_open_alerts(facts)}."


def _deployed_sentence(facts: DashboardData) -> str:
    if isinstance(facts.deployed, Unknown):
        return "The deployed version is unknown"
    if facts.deployed is None:
        return "No version is deployed yet"
    version, reported, named = (
        facts.deployed.release.version,
        facts.deployed.endpoint_version,
        facts.deployed.registry_version,
    )
    differing = []
    if isinstance(reported, str) and reported != version:
        differing.append(f"the endpoint reports {f'version {reported}' if reported else 'no version'}")
    if isinstance(named, str) and named not in ("", version):  # one that names none is shown beside the version
        differing.append(f"the registry names version {named}")
    but = f", but {' and '.join(differing)}" if differing else ""
    return f"Version {version} is deployed{but}"


def _last_monitoring_sentence(facts: DashboardData) -> str:
    if isinstance(facts.monitoring_runs, Unknown):
        return "the monitoring history is unknown"
    if not facts.monitoring_runs:
        return "no monitoring run yet"
    last = facts.monitoring_runs[-1]
    outcome = _OUTCOME_PHRASES.get(last.outcome, f"ended as {last.outcome}")
    deployed = facts.deployed.release.version if isinstance(facts.deployed, DeployedVersionSummary) else last.version
    of_version = "" if last.version == deployed else f" of version {last.version}"
    return f"the last monitoring run{of_version}, {words.relative_time(last.started_at, facts.drawn_at)}, {outcome}"


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

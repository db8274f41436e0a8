"""Write the dashboard of a model and the list of all dashboards, and create the flow run's artifact."""

from contextlib import suppress
from datetime import datetime
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact
from pydantic import BaseModel, ConfigDict, ValidationError

from blocks.environment import Environment
from runtime.files import write_text_atomically
from tasks.dashboard.facts import gather_dashboard_data
from tasks.dashboard.rules.page import DashboardEntry, dashboard_html, dashboards_index_html, status_sentence
from tasks.shared.models import load_model
from tasks.shared.records import DashboardResult
from tasks.shared.rules.refusal import Refusal


class DashboardSummary(BaseModel):
    """The entry of a dashboard in the list, stored beside its page."""

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


def read_summaries(folder: Path) -> list[DashboardEntry]:
    """Return the dashboards in a folder. An entry that cannot be read is left out until it is drawn again."""
    entries = []
    for path in sorted(folder.glob("[!.]*.json")):
        with suppress(OSError, ValidationError):
            read = DashboardSummary.model_validate_json(path.read_bytes())
            if path.with_suffix(".html").exists() and read.model == path.stem:
                entries.append(DashboardEntry(read.model, read.summary, read.drawn_at))
    return entries


def create_dashboard_artifact(drawn: DashboardResult) -> None:
    """Create the flow run's artifact: a link to the page, or its path when there is no server."""
    key = f"dashboard-{drawn.model.replace('_', '-')}"
    if drawn.url:
        create_link_artifact(
            key=key, link=drawn.url, link_text=f"Dashboard of {drawn.model}", description=drawn.headline
        )
    else:
        create_markdown_artifact(key=key, markdown=f"{drawn.headline}\n\n`{drawn.path}`", description=drawn.headline)

"""The page about a model: drawn whenever something happened to it, kept where it is served, and with the flow run."""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict, ValidationError

from blocks.environment import Environment, open_environment
from blocks.files import replace_text
from tasks.dashboard_facts import gather
from tasks.logic.dashboard.page import Listed, headline, index, page
from tasks.logic.refusal import Refusal
from tasks.models import load_model
from tasks.records import Drawn


class Sidecar(BaseModel):
    """What the list of all dashboards says of one, beside its page."""

    model_config = ConfigDict(extra="forbid")

    model: str
    headline: str
    drawn_at: datetime


@task(name="draw dashboard", persist_result=True, result_serializer="json")
def draw_dashboard(model: str, environment: str) -> Drawn | None:
    """Draw the model's page anew. It is a picture of what is recorded elsewhere: where it fails, nothing else does."""
    try:
        drawn = draw(open_environment(environment), model, datetime.now(UTC))
        if flow_run.id:
            show(drawn)
    except Exception as problem:
        get_run_logger().warning("the dashboard of %s was not drawn: %s: %s", model, type(problem).__name__, problem)
        return None
    get_run_logger().info("dashboard: %s", drawn.url or drawn.path)
    return drawn


def draw(world: Environment, model: str, now: datetime) -> Drawn:
    """Write the page of a model, and the list of all, each whole or not at all.

    Raises:
        Refusal: there is no such model, or it cannot have a page.
        OSError: the folder cannot be written.
    """
    if model == "index":
        raise Refusal(
            "its page would be the list of all pages", where="models/", value=model, remedy="Rename the model."
        )
    facts, folder = gather(world, load_model(model), now), world.dashboards_folder
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = facts.model
    listed = Sidecar(model=name, headline=headline(facts), drawn_at=now)
    replace_text(folder / f"{name}.html", page(facts))
    replace_text(folder / f"{name}.json", listed.model_dump_json())
    replace_text(folder / "index.html", index(list_of(folder)))
    url = world.dashboards.url.rstrip("/")
    return Drawn(model=name, headline=listed.headline, path=folder / f"{name}.html", url=f"{url}/{name}" if url else "")


def list_of(folder: Path) -> list[Listed]:
    """Return the dashboards of a folder; one whose line cannot be read is left out until it is drawn again."""
    found = []
    for path in sorted(folder.glob("[!.]*.json")):
        with suppress(OSError, ValidationError):
            read = Sidecar.model_validate_json(path.read_bytes())
            if path.with_suffix(".html").exists() and read.model == path.stem:
                found.append(Listed(read.model, read.headline, read.drawn_at))
    return found


def show(drawn: Drawn) -> None:
    """Make the flow run's artifact: a link where the page is served, else its path."""
    key = f"dashboard-{drawn.model.replace('_', '-')}"
    if drawn.url:
        create_link_artifact(
            key=key, link=drawn.url, link_text=f"Dashboard of {drawn.model}", description=drawn.headline
        )
    else:
        create_markdown_artifact(key=key, markdown=f"{drawn.headline}\n\n`{drawn.path}`", description=drawn.headline)

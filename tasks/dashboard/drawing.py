"""The page about a model: drawn whenever something happened to it, kept where it is served, and with the flow run."""

from contextlib import suppress
from datetime import datetime
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact
from pydantic import BaseModel, ConfigDict, ValidationError

from blocks.environment import Environment
from runtime.files import replace_text
from tasks.dashboard.facts import gather
from tasks.dashboard.rules.page import Listed, headline, index, page
from tasks.shared.models import load_model
from tasks.shared.records import Drawn
from tasks.shared.rules.refusal import Refusal


class Sidecar(BaseModel):
    """What the list of all dashboards says of one, beside its page."""

    model_config = ConfigDict(extra="forbid")

    model: str
    headline: str
    drawn_at: datetime


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

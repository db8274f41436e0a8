"""Render templates to pages. All values are escaped; a missing value is an error."""

import unicodedata
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from services.gateway.approvals_ui.web import UiResponse

TEMPLATES = Path(__file__).parent / "templates"


def render_page(status: int, template: str, **values: Any) -> UiResponse:
    """Return the page of a template."""
    return UiResponse(status, _templates().get_template(template).render(**values).encode(errors="replace"))


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=replace_invisible,
    )
    templates.filters |= {
        "number": format_number,
        "time": format_time,
        "dollars": format_dollars,
        "markdown": render_markdown,
    }
    templates.globals["difference"] = metric_difference
    return templates


STYLESHEET = UiResponse(
    200, (TEMPLATES / "style.css").read_bytes(), "text/css; charset=utf-8", {"cache-control": "public, max-age=300"}
)


def replace_invisible(value: object) -> object:
    """Replace invisible characters of a text; for example, bidirectional control characters could disguise it."""
    if type(value) is not str:  # Markup is made here and is safe
        return value
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_invisible(character) else character for character in value)


def _is_invisible(character: str) -> bool:
    return character not in "\n\r\t" and unicodedata.category(character) in {"Cc", "Cf", "Cs"}


def render_markdown(text: str) -> Markup:
    """Return a Markdown report as HTML. HTML in it is shown as text; links and images are switched off."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "image", "autolink"])
    return Markup(reader.render(text))  # noqa: S704  (html is off: everything else is escaped)


def format_number(value: float | None) -> str:
    """Return a number with four decimal places."""
    return "–" if value is None else f"{value:.4f}" if abs(value) < 1e6 else f"{value:.4g}"


def format_time(value: datetime) -> str:
    """Return a time in UTC, to the minute."""
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def format_dollars(value: float | None) -> str:
    """Return an amount in US dollars."""
    return "none: no paid work" if not value else f"{value:,.2f} USD"


def metric_difference(metric: str, ours: float | None, theirs: float | None) -> tuple[str, str]:
    """Return the difference from the champion, and whether it is "better", "worse" or ""."""
    from tasks.evaluation.rules.metrics import METRICS, higher_is_better  # imports pandas

    if ours is None or theirs is None:
        return "–", ""
    difference = ours - theirs
    if difference == 0 or not any(metric in names for names in METRICS.values()):
        return f"{difference:+.4f}", ""
    return f"{difference:+.4f}", "better" if (difference > 0) == higher_is_better(metric) else "worse"

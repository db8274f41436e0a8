"""Templates to pages. Everything that is put into one is escaped; a name that is missing is an error."""

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
    """Return a page."""
    return UiResponse(status, _templates().get_template(template).render(**values).encode(errors="replace"))


@cache
def _templates() -> Environment:
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=replace_invisible,
    )
    found.filters |= {
        "number": format_number,
        "time": format_time,
        "dollars": format_dollars,
        "markdown": render_markdown,
    }
    found.globals["difference"] = metric_difference
    return found


STYLESHEET = UiResponse(
    200, (TEMPLATES / "style.css").read_bytes(), "text/css; charset=utf-8", {"cache-control": "public, max-age=300"}
)


def replace_invisible(value: object) -> object:
    """Return text with its invisible signs shown as such: one that turns the direction of writing forges a line."""
    if type(value) is not str:  # Markup is ours
        return value
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_invisible(sign) else sign for sign in value)


def _is_invisible(sign: str) -> bool:
    return sign not in "\n\r\t" and unicodedata.category(sign) in {"Cc", "Cf", "Cs"}


def render_markdown(text: str) -> Markup:
    """Return a report of ours as HTML: markup of others in it stays text, and it links to nothing."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "image", "autolink"])
    return Markup(reader.render(text))  # noqa: S704  (html is off: everything else is escaped)


def format_number(value: float | None) -> str:
    """Return a number with four digits after the point."""
    return "–" if value is None else f"{value:.4f}" if abs(value) < 1e6 else f"{value:.4g}"


def format_time(value: datetime) -> str:
    """Return a time in UTC, to the minute."""
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def format_dollars(value: float | None) -> str:
    """Return an amount of money."""
    return "none: no paid work" if not value else f"{value:,.2f} USD"


def metric_difference(metric: str, ours: float | None, theirs: float | None) -> tuple[str, str]:
    """Return the difference to the champion, and whether it is "better", "worse" or ""."""
    from tasks.evaluation.rules.metrics import METRICS, higher_is_better  # brings pandas, for one table of names

    if ours is None or theirs is None:
        return "–", ""
    found = ours - theirs
    if found == 0 or not any(metric in known for known in METRICS.values()):
        return f"{found:+.4f}", ""
    return f"{found:+.4f}", "better" if (found > 0) == higher_is_better(metric) else "worse"

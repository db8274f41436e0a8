"""The pieces that sections of a dashboard are made of: tables, pills, keys of charts. Texts are escaped here."""

from collections.abc import Iterable, Sequence

from tasks.dashboard.rules.facts import Unknown
from tasks.dashboard.rules.words import escape_text

CellHtml = str
"""HTML of a cell: made by the functions of this module and of `words`, never a text as it came."""


def section_html(name: str, title: str, content: str, *, whole: bool = False) -> str:
    """Return a section with its heading; `whole` takes the page's whole width."""
    kind = ' class="whole"' if whole else ""
    head = f'<h2 id="{name}-title">{escape_text(title)}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title"{kind}>{head}{content}</section>'


def unknown_html(what: Unknown) -> str:
    """Return what is said in place of what could not be learnt."""
    return f'<p class="unknown">Unknown: {escape_text(what.reason)}</p>'


def empty_html(sentence: str) -> str:
    """Return what is said where there is nothing yet."""
    return f'<p class="unknown">{escape_text(sentence)}</p>'


def badge(word: str, kind: str) -> str:
    """Return a word on a coloured ground: ok, warn, bad or none."""
    return f'<span class="pill {kind}">{escape_text(word, 40)}</span>'


def html_table(label: str, heads: Sequence[str], rows: Iterable[Sequence[CellHtml]]) -> str:
    """Return a table, on a narrow screen one line a cell; a head that begins with # is of numbers."""
    kinds = [' class="n"' if head.startswith("#") else "" for head in heads]
    names = [escape_text(head.removeprefix("#")) for head in heads]
    columns = list(zip(kinds, names, strict=True))
    top = "".join(f'<th scope="col"{kind}>{name}</th>' for kind, name in columns)
    lines = (
        "".join(f'<td{kind} data-head="{name}">{cell}</td>' for cell, (kind, name) in zip(row, columns, strict=True))
        for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<div class="wide" role="region" aria-label="{escape_text(label)}" tabindex="0"><table class="rows">'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def key_value_table(rows: Iterable[tuple[str, CellHtml]]) -> str:
    """Return names and values, one a line."""
    lines = "".join(f'<tr><th scope="row">{escape_text(name)}</th><td>{cell}</td></tr>' for name, cell in rows)
    return f'<div class="wide"><table class="facts"><tbody>{lines}</tbody></table></div>'


def tile_html(name: str, value: CellHtml, more: CellHtml = "") -> str:
    """Return one of the few figures on top."""
    below = f'<dd class="more">{more}</dd>' if more else ""
    return f'<dl class="tile"><dt>{escape_text(name)}</dt><dd>{value}</dd>{below}</dl>'


_LEGEND_SYMBOLS = {
    "bar": '<rect class="bar {}" width="12" height="12"/>',
    "circle": '<circle class="mark {}" cx="6" cy="6" r="5"/>',
    "diamond": '<path class="mark {}" d="M6,0l6,6l-6,6l-6,-6Z"/>',
    "triangle": '<path class="mark {}" d="M6,1l6,10h-12Z"/>',
    "square": '<path class="mark {}" d="M1,1h10v10h-10Z"/>',
    "flag": '<g class="{}"><path class="flag" d="M2,12V1l9,4l-9,4Z"/></g>',
}


def chart_legend(entries: Iterable[tuple[str, str, str]]) -> str:
    """Return what a chart's signs mean: shape, class, word."""
    items = (
        f'<li><svg viewBox="0 0 12 12" aria-hidden="true">{_LEGEND_SYMBOLS[shape].format(kind)}</svg>{escape_text(word)}</li>'
        for shape, kind, word in entries
    )
    return f'<ul class="key">{"".join(items)}</ul>'

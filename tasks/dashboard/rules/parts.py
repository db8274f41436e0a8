"""The HTML parts of a dashboard: tables, badges, legends and the style sheet. Texts are escaped here."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256

from tasks.dashboard.rules.facts import Unknown
from tasks.dashboard.rules.words import escape_text

CellHtml = str
"""The HTML of a cell, made by functions of this module and of `words`; never a raw text."""


def section_html(name: str, title: str, content: str, *, whole: bool = False) -> str:
    """Return a section with its heading. `whole` means the whole width of the page."""
    kind = ' class="whole"' if whole else ""
    head = f'<h2 id="{name}-title">{escape_text(title)}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title"{kind}>{head}{content}</section>'


def unknown_html(unknown: Unknown) -> str:
    """Return the text for a part that could not be read."""
    return f'<p class="unknown">Unknown: {escape_text(unknown.reason)}</p>'


def empty_html(sentence: str) -> str:
    """Return the text for a part without data."""
    return f'<p class="unknown">{escape_text(sentence)}</p>'


def badge(word: str, kind: str) -> str:
    """Return a word on a coloured background: ok, warn, bad or none."""
    return f'<span class="pill {kind}">{escape_text(word, 40)}</span>'


def html_table(label: str, heads: Sequence[str], rows: Iterable[Sequence[CellHtml]]) -> str:
    """Return a table; on a narrow screen each cell is a line. A head that begins with # marks a column of numbers."""
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
    """Return a table of names and values."""
    lines = "".join(f'<tr><th scope="row">{escape_text(name)}</th><td>{cell}</td></tr>' for name, cell in rows)
    return f'<div class="wide"><table class="facts"><tbody>{lines}</tbody></table></div>'


def tile_html(name: str, value: CellHtml, more: CellHtml = "") -> str:
    """Return one of the tiles at the top of the page."""
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
    """Return the legend of a chart from (shape, class, word) entries."""
    items = (
        f'<li><svg viewBox="0 0 12 12" aria-hidden="true">{_LEGEND_SYMBOLS[shape].format(kind)}</svg>'
        f"{escape_text(word)}</li>"
        for shape, kind, word in entries
    )
    return f'<ul class="key">{"".join(items)}</ul>'


STYLE = """
:root{color-scheme:light dark;--bg:#f4f6f8;--card:#fff;--ink:#1b2530;--soft:#586674;--line:#dde3e9;
--a:#0067a8;--b:#8a5a9e;--ok:#007a5a;--warn:#a85b00;--bad:#b3261e;--none:#6a7682;
--ok-bg:#e3f4ee;--warn-bg:#fdf0dd;--bad-bg:#fce8e6;--none-bg:#eceff2}
@media(prefers-color-scheme:dark){:root{--bg:#11161c;--card:#1a2129;--ink:#e6ebf0;--soft:#9aa8b6;--line:#2d3843;
--a:#5db3ea;--b:#c79bdb;--ok:#4cc9a0;--warn:#f0ae55;--bad:#ff8b80;--none:#9aa8b6;
--ok-bg:#12352b;--warn-bg:#3a2a12;--bad-bg:#42201d;--none-bg:#28313a}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main,header,footer{max-width:80rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:1.75rem}
h1{font-size:1.7rem;line-height:1.2;margin:0;overflow-wrap:anywhere}
h2{font-size:1.05rem;margin:0 0 .6rem}h3{font-size:.85rem;margin:1rem 0 .3rem;color:var(--soft);font-weight:600}
p{margin:.35rem 0;overflow-wrap:anywhere}a{color:var(--a)}.soft,time{color:var(--soft)}time{white-space:nowrap}
.said{font-size:1.05rem;margin:.7rem 0 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.6rem,1fr));gap:.75rem;margin:1.1rem 0}
.tile,section{background:var(--card);border:1px solid var(--line);border-radius:.6rem}
.tile{padding:.7rem .9rem;margin:0}.tile dt{font-size:.78rem;color:var(--soft)}
.tile dd{margin:0;font-size:1.35rem;font-weight:600;line-height:1.35;overflow-wrap:anywhere}
.tile dd.more{font-size:.78rem;font-weight:400;color:var(--soft);line-height:1.4}
.grid-of{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,30rem),1fr));gap:.75rem}
section{padding:1rem 1.1rem;min-width:0}section.whole{grid-column:1/-1}
.pair{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,26rem),1fr));gap:0 1.5rem}.pair>*{min-width:0}
svg{display:block;width:100%;height:auto}svg.spark{width:90px;height:20px}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.88rem}
th,td{text-align:left;padding:.32rem .9rem .32rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--soft);font-size:.78rem;white-space:nowrap}tr:last-child td{border-bottom:0}
td{overflow-wrap:break-word}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}

table.facts th{width:9rem;white-space:normal}
table.facts td{overflow-wrap:anywhere}code{font:.85em ui-monospace,monospace}
.pill{display:inline-block;border-radius:1rem;padding:.05rem .6rem;font-size:.8rem;font-weight:600;white-space:nowrap}
.tile .pill{font-size:1.05rem}
.pill.ok{background:var(--ok-bg);color:var(--ok)}.pill.warn{background:var(--warn-bg);color:var(--warn)}
.pill.bad{background:var(--bad-bg);color:var(--bad)}.pill.none{background:var(--none-bg);color:var(--none)}
.unknown{color:var(--soft);font-style:italic}
.key{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.78rem;color:var(--soft);margin:.2rem 0 .4rem;
padding:0;list-style:none}
.key svg{display:inline-block;width:12px;height:12px;vertical-align:-1px;margin-right:.3rem}
footer{font-size:.8rem;color:var(--soft);padding-top:1rem;padding-bottom:2rem}
.tick{font-size:11px;fill:var(--soft);font-family:inherit;paint-order:stroke;stroke:var(--card);stroke-width:3px}.tick.end{text-anchor:end}.tick.middle{text-anchor:middle}
@media(max-width:640px){.tick{font-size:14px}main,header,footer{padding-left:.8rem;padding-right:.8rem}
section{padding:.85rem}table.facts th{width:6.5rem}
table.rows,.rows tbody{display:block}.rows thead{display:none}
.rows tr{display:block;padding:.4rem 0;border-bottom:1px solid var(--line)}.rows tr:last-child{border-bottom:0}
.rows td,.rows td.n{display:flex;gap:.6rem;padding:.1rem 0;border:0;text-align:left;white-space:normal}
.rows td::before{content:attr(data-head);flex:0 0 5.5rem;color:var(--soft)}.rows td:empty{display:none}}
.grid{stroke:var(--line)}.axis{stroke:var(--soft)}.level{stroke:var(--soft);stroke-dasharray:5 4}
.event{stroke:var(--soft);stroke-dasharray:2 3}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.line.a{stroke:var(--a)}.line.b{stroke:var(--b)}
.area{fill:var(--a);opacity:.12}.whisker{stroke:var(--a);stroke-width:1.5}
.bar.a,.dot.a,.mark.a{fill:var(--a)}.bar.warn{fill:var(--warn)}.bar.bad{fill:var(--bad)}.dot.b,.mark.b{fill:var(--b)}
.mark{stroke:var(--card);stroke-width:1.5}.mark.ok{fill:var(--ok)}.mark.warn{fill:var(--warn)}.mark.bad{fill:var(--bad)}
.mark.none{fill:var(--card);stroke:var(--none)}.mark.small{stroke:none}
.warn .band{fill:var(--warn);opacity:.13}.bad .band{fill:var(--bad);opacity:.13}
.warn .flag{fill:var(--warn);stroke:var(--warn)}.bad .flag{fill:var(--bad);stroke:var(--bad)}
@media print{body{background:#fff}section,.tile{break-inside:avoid}}
"""


_DIGEST = b64encode(sha256(STYLE.encode()).digest()).decode()


CONTENT_SECURITY_POLICY = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'"
"""What the page says of itself: no script, nothing from anywhere, and no style but this one."""


MAX_LIST_ROWS = 12
"""The largest number of rows of a list. Only the newest are shown, with the number of the others."""


def more_note(entries: Sequence[object], shown: Sequence[object]) -> str:
    """Return a note with the number of entries that are not shown, or ""."""
    more = len(entries) - len(shown)
    return f'<p class="soft">and {more:,} more</p>' if more > 0 else ""

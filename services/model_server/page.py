"""The host's one page for people: what is served, since when, how often asked."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:3rem auto;padding:0 1.5rem}
h1{font-size:1.5rem;margin:0}p{color:#777;margin:.25rem 0 2rem}
table{border-collapse:collapse;width:100%}
th{font-weight:600;font-size:.8rem;color:#777;text-align:left}
th,td{padding:.6rem .9rem .6rem 0;border-bottom:1px solid #8883;white-space:nowrap}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
code{font:.85rem ui-monospace,monospace}
.up{color:#197a3e}.down{color:#b3261e}h2{font-size:1rem;margin:2.5rem 0 .5rem}
"""
_HEADINGS = (
    "<tr><th>Endpoint<th>State<th>Version<th>Digest<th>Since<th>Stands by"
    '<th class="n">Requests<th class="n">Refused<th class="n">Failed'
    '<th class="n">Rows logged<th class="n">Rows dropped</tr>'
)
_API_CALLS = """
<h2>Calls</h2>
<table>
<tr><td><code>POST /endpoints/{name}/invocations</code><td>ask the live model: JSON or CSV
<tr><td><code>GET /endpoints</code>, <code>GET /endpoints/{name}</code><td>what is served, as JSON
<tr><td><code>GET <a href="/dashboards/">/dashboards/</a></code><td>a page about each model, where the host has them
<tr><td><code>PUT /admin/endpoints/{name}</code><td>release a version; needs the token
<tr><td><code>GET <a href="/openapi.json">/openapi.json</a></code><td>all of it, described
</table>
"""


def render_page(endpoints: Sequence[Mapping[str, Any]]) -> str:
    """Return the page for endpoints given as the fields of `server.Status`."""
    rows = "".join(_endpoint_row(endpoint) for endpoint in endpoints)
    table = f"<table>{_HEADINGS}{rows}</table>" if rows else "<p>Nothing has been released yet.</p>"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Ratchet hosting</title>'
        f'<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="10">'
        f"<style>{_STYLE}</style><h1>Ratchet hosting</h1>"
        f"<p>Models served from this machine.</p>{table}{_API_CALLS}</html>"
    )


def _endpoint_row(e: Mapping[str, Any]) -> str:
    state = '<td class="up">● serving' if e["serving"] else f'<td class="down" title="{escape(e["failure"])}">● down'
    return (
        f"<tr><td><b>{escape(e['endpoint'])}</b>{state}<td>{escape(e['version'])}"
        f'<td><code title="{e["digest"]}">{e["digest"][:12]}</code>'
        f"<td>{e['since']:%Y-%m-%d %H:%M:%S} UTC<td>{escape(e['standby'] or '–')}"
        f'<td class="n">{e["requests"]:,}<td class="n">{e["refused"]:,}<td class="n">{e["failed"]:,}'
        f'<td class="n">{e["logged"]:,}' + ("" if e["logging"] else " (off)") + _dropped_cell(e) + "</tr>"
    )


def _dropped_cell(e: Mapping[str, Any]) -> str:
    style = "n down" if e["dropped"] else "n"
    return f'<td class="{style}" title="{escape(e["log_problem"])}">{e["dropped"]:,}'

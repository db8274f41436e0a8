"""Pages of the model server: its status page, and the dashboards of models, served read-only from one folder."""

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi import Path as PathField
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from runtime.foreign_text import html_text

SECURITY_HEADERS = {
    # Each page also has its own policy, which allows its one style by digest. Both apply: scripts stay forbidden.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
MAX_PAGE_BYTES = 16 << 20
"""Maximum size of a page; a larger file was not rendered here and is not served."""

PageName = Annotated[
    str,
    PathField(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}(\.html)?$", description="the model's name"),
]


def add_dashboard_routes(app: FastAPI, folder: Path) -> None:
    """Add the routes of the list of all pages and of each page, with and without the suffix `.html`."""

    @app.get("/dashboards/", include_in_schema=False)
    def everything() -> Response:
        return _page_response(folder, "index")

    @app.get("/dashboards/{name}", summary="A page about one model", response_class=Response)
    def dashboard(name: PageName) -> Response:
        return _page_response(folder, name.removesuffix(".html"))


def _page_response(folder: Path, name: str) -> Response:
    content = read_page(folder, name)
    if content is None:
        raise HTTPException(404, f"there is no dashboard {name!r} yet; a run of `monitor` renders it")
    return Response(content, media_type="text/html; charset=utf-8", headers=SECURITY_HEADERS)


def read_page(folder: Path, name: str) -> bytes | None:
    """Return a page, or None when it is missing or is not a regular file (a link, a folder, a pipe)."""
    try:
        handle = os.open(folder / f"{name}.html", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_PAGE_BYTES:
            return None
        with os.fdopen(handle, "rb", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(handle)


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
    "<tr><th>Endpoint<th>State<th>Version<th>Digest<th>Since<th>Standby"
    '<th class="n">Requests<th class="n">Refused<th class="n">Failed'
    '<th class="n">Rows logged<th class="n">Rows dropped</tr>'
)


_API_CALLS = """
<h2>Calls</h2>
<table>
<tr><td><code>POST /endpoints/{name}/invocations</code><td>score rows with the live model: JSON or CSV
<tr><td><code>GET /endpoints</code>, <code>GET /endpoints/{name}</code><td>the status of the endpoints, as JSON
<tr><td><code>GET <a href="/dashboards/">/dashboards/</a></code><td>the dashboard of each model, if the server has them
<tr><td><code>PUT /admin/endpoints/{name}</code><td>release a version; needs the token
<tr><td><code>GET <a href="/openapi.json">/openapi.json</a></code><td>the description of all calls
</table>
"""


def render_page(endpoints: Sequence[Mapping[str, Any]]) -> str:
    """Return the page for endpoints given as the fields of `server.EndpointStatus`."""
    rows = "".join(_endpoint_row(endpoint) for endpoint in endpoints)
    table = f"<table>{_HEADINGS}{rows}</table>" if rows else "<p>Nothing has been released yet.</p>"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Ratchet model server</title>'
        f'<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="10">'
        f"<style>{_STYLE}</style><h1>Ratchet model server</h1>"
        f"<p>Models served from this machine.</p>{table}{_API_CALLS}</html>"
    )


def _endpoint_row(e: Mapping[str, Any]) -> str:
    state = '<td class="up">● serving' if e["serving"] else f'<td class="down" title="{html_text(e["failure"])}">● down'
    return (
        f"<tr><td><b>{html_text(e['endpoint'])}</b>{state}<td>{html_text(e['version'])}"
        f'<td><code title="{e["digest"]}">{e["digest"][:12]}</code>'
        f"<td>{e['since']:%Y-%m-%d %H:%M:%S} UTC<td>{html_text(e['standby'] or '–')}"
        f'<td class="n">{e["requests"]:,}<td class="n">{e["refused"]:,}<td class="n">{e["failed"]:,}'
        f'<td class="n">{e["logged"]:,}' + ("" if e["logging"] else " (off)") + _dropped_cell(e) + "</tr>"
    )


def _dropped_cell(e: Mapping[str, Any]) -> str:
    style = "n down" if e["dropped"] else "n"
    return f'<td class="{style}" title="{html_text(e["log_problem"])}">{e["dropped"]:,}'

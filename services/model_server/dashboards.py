"""The pages about models, shown read-only as they lie in their folder: by name, and nothing else of the disk."""

import os
import stat
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI
from fastapi import Path as PathField
from fastapi.responses import Response
from starlette.exceptions import HTTPException

SECURITY_HEADERS = {
    # The page's own policy allows its one style by digest; both hold. What is inline and no style stays forbidden.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
MAX_PAGE_BYTES = 16 << 20
"""A page with more bytes is none that was drawn here."""

PageName = Annotated[
    str,
    PathField(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}(\.html)?$", description="the model's name"),
]


def add_dashboard_routes(app: FastAPI, folder: Path) -> None:
    """Add the list of all pages, and each page, with and without the ending that the links in them have."""

    @app.get("/dashboards/", include_in_schema=False)
    def everything() -> Response:
        return _page_response(folder, "index")

    @app.get("/dashboards/{name}", summary="A page about one model", response_class=Response)
    def dashboard(name: PageName) -> Response:
        return _page_response(folder, name.removesuffix(".html"))


def _page_response(folder: Path, name: str) -> Response:
    content = read_page(folder, name)
    if content is None:
        raise HTTPException(404, f"no dashboard {name!r} has been drawn yet; a run of `monitor` draws it")
    return Response(content, media_type="text/html; charset=utf-8", headers=SECURITY_HEADERS)


def read_page(folder: Path, name: str) -> bytes | None:
    """Return a page, or None: a link that leads elsewhere, a folder or a pipe is no page."""
    try:
        handle = os.open(folder / f"{name}.html", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_PAGE_BYTES:
            return None
        with os.fdopen(handle, "rb", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(handle)

"""The HTTP interfaces under schemathesis: calls that their OpenAPI documents describe, and the bodies that they do not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import schemathesis
from fastapi import FastAPI
from hypothesis import strategies as st
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from services.model_server.endpoints import ServedEndpoints
from services.model_server.server import create_app
from tests.fixtures.office import Office
from tests.fuzz.parsers import Target

KEY = "that of the model server"
_TEXT = {"schema": {"type": "string", "maxLength": 300}}
_FORM = {name: {"type": "string"} for name in ("token", "name", "password", "next", "verdict", "reason", "digest")}
_JSON = {"name": {}, "password": {}, "approve": {}, "reason": {}, "digest": {}}


class _Running:
    """The app without its start and end, which the caller does once."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        for answer in ("startup", "shutdown"):
            await receive()
            message: Message = {"type": f"lifespan.{answer}.complete"}
            await send(message)


def _calls(app: FastAPI, document: dict[str, Any], base: str, headers: dict[str, str]) -> Target:
    schema = schemathesis.openapi.from_dict(document)
    schema.app = _Running(app)
    operations = [each.ok() for each in schema.get_all_operations()]

    def attempt(drawn: tuple[Any, bool]) -> None:
        case, signed_in = drawn
        response = case.call(base_url=base, headers=headers if signed_in else None)
        assert response.status_code < 500, f"{case.method} {case.path}: {response.status_code} {response.text[:500]}"

    return Target(st.tuples(st.one_of([each.as_strategy() for each in operations]), st.booleans()), attempt)


def _described(document: dict[str, Any]) -> dict[str, Any]:
    """Add to the gateway's document what its handlers read from the request by themselves."""
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            names = [("query", name) for name in ("next", "code", "state", "iss", "error")]
            names += [("path", "name")] if "{name}" in path else []
            call["parameters"] = [
                {"in": place, "name": name, "required": place == "path", **_TEXT} for place, name in names
            ]
            if method == "post":
                form, plain = {"type": "object", "properties": _FORM}, {"type": "object", "properties": _JSON}
                kinds = {"application/x-www-form-urlencoded": {"schema": form}, "application/json": {"schema": plain}}
                call["requestBody"] = {"content": kinds}
    return document


@contextmanager
def gateway() -> Iterator[Target]:
    """Yield calls of the gateway: the approvals page and its API, signed in and not, and the webhooks."""
    with TemporaryDirectory() as folder:
        office = Office.at(Path(folder))
        office.ask()
        browser = office.signed_in()
        headers = {**office.token("ann@example.com"), "cookie": f"ratchet-session={browser.cookies['ratchet-session']}"}
        document = _described(office.app.openapi())
        yield _calls(office.app, document, "http://gateway.test", headers)


@contextmanager
def model_server() -> Iterator[Target]:
    """Yield calls of a model server without a model, with its token and without."""
    with TemporaryDirectory() as folder:
        app = create_app(ServedEndpoints(Path(folder)), KEY)
        with TestClient(app):
            headers = {"authorization": f"Bearer {KEY}"}
            yield _calls(app, app.openapi(), "http://127.0.0.1", headers)


SERVERS = {"gateway": gateway, "model server": model_server}
"""The servers, by the names that `make fuzz` prints."""

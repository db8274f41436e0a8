"""The door before `/admin`."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.web import error_response
from services.model_server.access import access_error


class AdminGuard:
    """Lets nothing below `/admin` through without the token, before anything else looks at the call."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or 403, or pass the call on."""
        if scope["type"] == "http" and scope["path"].split("/")[1:2] == ["admin"]:
            refused = access_error(self._token, Headers(scope=scope).get("authorization"))
            if refused:
                await error_response(*refused)(scope, receive, send)
                return
        await self._app(scope, receive, send)

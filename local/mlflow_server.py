"""The guard of the stack's MLflow server, which `mlflow server --uvicorn-opts` names: no foreign pages, no assistant.

MLflow checks Host and Origin itself, but not enough: its list of hosts contains patterns like `10.*`, which a public
name can match, and its check of Origin leaves out paths, methods and every other port of this machine. Its assistant
runs shell commands for whoever reaches the port. MLflow starts uvicorn in a process of its own, so both are put around
the application where uvicorn's options allow it.
"""

import os
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runtime.foreign_pages import ForeignPageGuard


def without_assistant(app: ASGIApp) -> ASGIApp:
    """Return the application without the routes of MLflow's assistant, which cannot be switched off."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        hidden = "/mlflow/assistant" in scope.get("path", "")
        await (PlainTextResponse("the assistant is off\n", 404) if hidden else app)(scope, receive, send)

    return guarded


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol; its WebSocket protocol uses the same application. `$RATCHET_MLFLOW_ADDRESSES` counts."""

    def __init__(self, config: Config, *arguments: Any, **more: Any) -> None:
        if not isinstance(config.loaded_app, ForeignPageGuard):  # the first connection of the process
            addresses = os.environ.get("RATCHET_MLFLOW_ADDRESSES", "").split()
            config.loaded_app = ForeignPageGuard(without_assistant(config.loaded_app), addresses)
        super().__init__(config, *arguments, **more)

"""The guard of the stack's MLflow server against foreign pages, which `mlflow server --uvicorn-opts` names.

MLflow checks Host and Origin itself, but not enough: its list of hosts contains patterns like `10.*`, which a public
name can match, and its check of Origin leaves out paths, methods and every other port of this machine. MLflow starts
uvicorn in a process of its own, so the guard is put around the application where uvicorn's options allow it.
"""

import os
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runtime.foreign_pages import ForeignPageGuard


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol; its WebSocket protocol uses the same application. `$RATCHET_MLFLOW_ADDRESSES` counts."""

    def __init__(self, config: Config, *arguments: Any, **more: Any) -> None:
        if not isinstance(config.loaded_app, ForeignPageGuard):  # the first connection of the process
            addresses = os.environ.get("RATCHET_MLFLOW_ADDRESSES", "").split()
            config.loaded_app = ForeignPageGuard(config.loaded_app, addresses)
        super().__init__(config, *arguments, **more)

"""The local SageMaker in this process: moto, the operations, and the HTTP server."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from local.sagemaker.aws import AwsClients
from local.sagemaker.operations import Operations
from local.sagemaker.protocol import SageMakerApplication
from local.sagemaker.settings import Settings


class LocalSageMaker:
    """A server on 127.0.0.1. Tests inject failures by `faults`."""

    def __init__(self, settings: Settings, port: int = 0) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self._app: Any = None
        self._server = make_server("127.0.0.1", port, self._wsgi, threaded=True, request_handler=_quiet_handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.operations = Operations(settings, AwsClients(self.url, settings.region))
        self.faults = self.operations.faults
        self._app = SageMakerApplication(DomainDispatcherApplication(create_backend_app), self.operations)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="local-sagemaker")

    def start(self) -> None:
        """Start the server."""
        self._thread.start()
        self.operations.alarms.start()
        self.operations.capture.start()

    def stop(self) -> None:
        """Stop all containers, then the server; its records are lost."""
        self.operations.alarms.stop()
        self.operations.containers.stop_all()
        self.operations.capture.stop()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
        shutil.rmtree(self.operations.settings.state, ignore_errors=True)

    def _wsgi(self, environ: Any, start_response: Any) -> Any:
        return self._app(environ, start_response)


@contextmanager
def running_server(settings: Settings, port: int = 0) -> Iterator[LocalSageMaker]:
    """Run a server during the block."""
    server = LocalSageMaker(settings, port)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _quiet_handler() -> Any:
    from moto.moto_server.werkzeug_app import MotoRequestHandler

    class Quiet(MotoRequestHandler):
        """A request handler that does not log requests."""

        def log_request(self, *_: Any) -> None:
            """Log nothing."""

    return Quiet

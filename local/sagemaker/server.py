"""The local SageMaker in this process: moto behind a WSGI application that handles SageMaker's operations itself."""

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from werkzeug.datastructures import EnvironHeaders

from local.sagemaker import page, shapes
from local.sagemaker.aws import AwsClients
from local.sagemaker.errors import ApiError, NotImplementedLocally
from local.sagemaker.invocations import CUSTOM_ATTRIBUTES_HEADER, FORWARDED_HEADERS
from local.sagemaker.operations import OPERATIONS, Operations
from local.sagemaker.settings import Settings
from runtime.foreign_pages import AllowedAddresses

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Wsgi = Callable[[Environ, StartResponse], Iterable[bytes]]
HttpResult = tuple[int, list[tuple[str, str]], bytes]
LOCAL_SERVICES = ("sagemaker",)
JSON_HEADER = ("Content-Type", "application/x-amz-json-1.1")
_ADDRESSES = AllowedAddresses()
_CREDENTIAL = re.compile(r"Credential=[^/]*/\d{8}/([^/]+)/([^/]+)/aws4_request")
_INVOCATION = re.compile(r"/endpoints/([^/]+)/invocations")


class SageMakerApplication:
    """A WSGI application that wraps moto's."""

    def __init__(self, moto: Wsgi, operations: Operations) -> None:
        self._moto, self._operations = moto, operations

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request."""
        path = environ.get("PATH_INFO", "")
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if reason := _page_refusal(environ):
            start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
            return [reason.encode()]
        region, service = _signed_scope(environ)
        if not (path.startswith("/_local") or target.startswith("SageMaker.") or service in LOCAL_SERVICES):
            return self._moto(environ, start_response)
        try:
            status, headers, body = self._answer(environ, path, target, region)
        except ApiError as refused:
            status, headers, body = _error_result(refused)
        start_response(f"{status} {'OK' if status == 200 else 'Error'}", [*headers, ("Content-Length", str(len(body)))])
        return [body]

    def _answer(self, environ: Environ, path: str, target: str, region: str) -> HttpResult:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if path.startswith("/_local"):
            return self._local(environ["REQUEST_METHOD"], path, body)
        if region and region != self._operations.settings.region:
            here = self._operations.settings.region
            raise ApiError("ValidationException", f"this local SageMaker is the region {here}, not {region}; start it "
                          f"with --region {region}, or set AWS_DEFAULT_REGION={here}")  # fmt: skip
        if invocation := _INVOCATION.fullmatch(path):
            return self._invoke(invocation[1], body, environ)
        operation = target.partition(".")[2]
        if operation not in self._operations.handlers:
            raise NotImplementedLocally(operation or f"{environ['REQUEST_METHOD']} {path}")
        self._operations.faults.raise_for_operation(operation)
        request = shapes.parse_request(operation, body)
        shapes.refuse_unsupported_members(operation, request, OPERATIONS[operation].members)
        return 200, [JSON_HEADER], shapes.render_response(operation, self._operations.handlers[operation](request))

    def _invoke(self, endpoint: str, body: bytes, environ: Environ) -> HttpResult:
        self._operations.faults.raise_for_operation("InvokeEndpoint")
        forwarded = {name: _header(environ, name) for name in FORWARDED_HEADERS}
        for name in ("Target-Model", "Target-Container-Hostname", "Inference-Component", "Session-Id"):
            if _header(environ, f"X-Amzn-SageMaker-{name}"):
                raise NotImplementedLocally(f"InvokeEndpoint with {name}")
        variant = _header(environ, "X-Amzn-SageMaker-Target-Variant")
        headers = {name: value for name, value in forwarded.items() if value}
        response, invoked = self._operations.invoking.invoke(endpoint, body, headers, variant)
        response_headers = [("Content-Type", response.headers.get("content-type", ""))]
        response_headers.append(("x-Amzn-Invoked-Production-Variant", invoked))
        if attributes := response.headers.get(CUSTOM_ATTRIBUTES_HEADER):
            response_headers.append((CUSTOM_ATTRIBUTES_HEADER, attributes))
        return 200, response_headers, response.content

    def _local(self, method: str, path: str, body: bytes) -> HttpResult:
        """Handle the paths that AWS does not have: the page, the state, the faults."""
        operations, faults = self._operations, self._operations.faults
        if (method, path) == ("GET", "/_local/state"):
            return _json_result(page.server_state(operations))
        if method == "GET" and path in ("/_local", "/_local/"):
            return 200, [("Content-Type", "text/html; charset=utf-8")], page.render_page(operations).encode()
        if path == "/_local/faults" and method in ("GET", "POST", "DELETE"):
            if method == "POST":
                faults.add_from_json(_json_object(body))
            elif method == "DELETE":
                faults.clear()
            return _json_result(faults.as_dicts())
        if method == "GET" and path == "/_local/fidelity":
            return _json_result({name: asdict(each) for name, each in OPERATIONS.items()})
        raise ApiError("NotFound", f"there is no {method} {path}; see GET /_local", 404)


def _signed_scope(environ: Environ) -> tuple[str, str]:
    """Return region and service in a request's signature."""
    match = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    return (match[1], match[2]) if match else ("", "")


def _page_refusal(environ: Environ) -> str:
    """Return why the request of a foreign page is refused, "" for others: jobs run commands, moto's S3 holds models."""
    headers = ((name.encode("latin-1"), value.encode("latin-1")) for name, value in EnvironHeaders(environ))
    return _ADDRESSES.refusal(environ["REQUEST_METHOD"], headers)


def _header(environ: Environ, name: str) -> str | None:
    key = name.upper().replace("-", "_")
    return environ.get("CONTENT_TYPE" if key == "CONTENT_TYPE" else f"HTTP_{key}")


def _json_object(body: bytes) -> Mapping[str, Any]:
    try:
        return dict(json.loads(body))
    except (ValueError, TypeError) as cause:
        raise ApiError("ValidationException", f"the body is not a JSON object: {cause}") from cause


def _json_result(content: object) -> HttpResult:
    return 200, [("Content-Type", "application/json")], json.dumps(content, default=str).encode()


def _error_result(refused: ApiError) -> HttpResult:
    content = {"__type": refused.code, "message": refused.message, "Message": refused.message, **refused.more}
    return refused.status, [("x-amzn-errortype", refused.code), JSON_HEADER], json.dumps(content).encode()


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

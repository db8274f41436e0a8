"""The door on a real socket: what takes too long is cut, whichever part of a request it is."""

import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn

from blocks.ledger.fake import FakeLedger
from deployments.secret_store import Vault
from services.gateway.app import Limits, application
from services.gateway.serving import config, listen
from tests.services.gateway.hooks import VARIABLES, hook, push, triggers
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Serve a door with little patience, and return its port."""
    monkeypatch.setattr("services.gateway.header_timeout.HEAD_SECONDS", 0.3)
    app = application(FakeLedger(), triggers(), Vault(VARIABLES), Limits(body_seconds=0.3))
    server = uvicorn.Server(config(app))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_for(lambda: server.started, what="the start")
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


def answer_to(port: int, sent: bytes, more: bytes = b"") -> bytes:
    """Send, then `more` byte by byte, and return what comes until the other side hangs up, within 30 s."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(sent)
        for byte in more:
            time.sleep(0.05)
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                break
        found = b""
        try:
            while chunk := connection.recv(65_536):
                found += chunk
        except ConnectionResetError:
            pass
        return found


@pytest.mark.parametrize(
    ("sent", "more"),
    [
        (b"", b""),
        (b"POST /hooks/github HTTP/1.1\r\nhost: x\r\n", b""),
        (b"POST ", b"/hooks/github"),
        (b"", b"\r\n" * 10),
    ],
    ids=["silence", "half the headers", "letter by letter", "empty lines"],
)
def test_who_never_ends_the_headers_is_hung_up_on(port: int, sent: bytes, more: bytes) -> None:
    begun = time.monotonic()
    assert b" 20" not in answer_to(port, sent, more)
    assert time.monotonic() - begun < 15


def test_a_second_request_on_a_connection_has_the_same_end(port: int) -> None:
    first = b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n"
    assert answer_to(port, first + b"GET /ping HTTP/1.1\r\nho").count(b"HTTP/1.1 200") == 1


def test_a_body_that_drops_in_is_answered_408_and_hung_up_on(port: int) -> None:
    head = b"POST /hooks/github HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
    assert answer_to(port, head, b"x" * 12).startswith(b"HTTP/1.1 408")


def test_one_who_is_slow_does_not_hold_up_the_others(port: int) -> None:
    slow = threading.Thread(target=answer_to, args=(port, b"POST /hooks/github HTTP/1.1\r\nho"))
    slow.start()
    given = hook("github", "push", push())
    url = f"http://127.0.0.1:{port}/hooks/github"
    assert httpx.post(url, content=given.body, headers=given.raw, timeout=60).status_code == 202
    slow.join(60)

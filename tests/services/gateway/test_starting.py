"""Start of runs over the Prefect API: a busy server is retried, and its run starts soon after."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks.common.errors import Rejected, Unavailable
from services.gateway.run_starter import FlowRunSpec, PrefectRunStarter

ORDER = FlowRunSpec("git/d-1/churn", "retrain/retrain", {"model": "churn"}, {"RATCHET_COMMIT": "a" * 40}, ("git",))
STAMP = "2026-11-26T03:00:00Z"


class Server(ThreadingHTTPServer):
    """Responds as the Prefect API does when a run is created; `answers` come first, one status each."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[int] = []
        self.orders: list[dict[str, Any]] = []
        self.run_id = str(uuid4())


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if "/csrf-token" in self.path:
            self.say(422, {"detail": "CSRF protection is disabled."})
        else:
            made = {"id": str(uuid4()), "name": "retrain", "flow_id": str(uuid4()), "created": STAMP, "updated": STAMP}
            self.say(200, made)

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.answers:
            self.say(self.server.answers.pop(0), {"detail": "not now"})
        else:
            self.server.orders.append(given)
            self.say(
                201,
                {"id": self.server.run_id, "flow_id": str(uuid4()), "name": "r", "created": STAMP, "updated": STAMP},
            )

    def say(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps("3.8.8" if self.path.endswith("/version") else body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as started:
        threading.Thread(target=started.serve_forever, daemon=True).start()
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{started.server_address[1]}/api"}):
            yield started
        started.shutdown()


def test_a_run_is_started_under_the_key_of_its_order(server: Server) -> None:
    assert PrefectRunStarter().start(ORDER) == server.run_id
    (order,) = server.orders
    assert order["idempotency_key"] == "git/d-1/churn"
    assert order["parameters"] == {"model": "churn"}
    assert order["job_variables"] == {"env": {"RATCHET_COMMIT": "a" * 40}}


def test_a_server_that_is_busy_for_a_moment_is_asked_again_at_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("prefect.client.base.time.sleep", waits.append)
    server.answers = [503, 503]
    assert PrefectRunStarter().start(ORDER) == server.run_id
    assert [seconds < 0.5 for seconds in waits] == [True, True], "Prefect's client alone waits 2 s, then 4 s"
    assert len(server.orders) == 1


def test_a_server_that_stays_busy_is_unavailable(server: Server) -> None:
    server.answers = [503] * 6
    with pytest.raises(Unavailable, match="Prefect responds with status 503"):
        PrefectRunStarter().start(ORDER)
    assert not server.orders


def test_an_order_that_prefect_refuses_is_rejected(server: Server) -> None:
    server.answers = [409]
    with pytest.raises(Rejected, match="not now"):
        PrefectRunStarter().start(ORDER)
    assert not server.orders

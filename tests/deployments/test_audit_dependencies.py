"""`make audit-dependencies`: a known fault, none, and a database that cannot be reached are three different answers."""

import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deployments.audit_dependencies import FAULTS, MAX_LOCK_AGE, NO_FAULT, UNKNOWN, age_warning, audit, main

FAULT = {
    "id": "OSV-1", "details": "It is broken.", "aliases": [], "published": "2026-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "faulty"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
        }
    ],
}  # fmt: skip


@pytest.fixture
def database() -> Iterator[str]:
    """A database that knows a fault of one package."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = json.dumps({"vulns": [FAULT]} if asked["package"]["name"] == "faulty" else {}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
        server.shutdown()
        thread.join()


def lock(folder: Path, *packages: str) -> Path:
    path = folder / "requirements.lock"
    path.write_text("\n".join(f"{each} \\\n    --hash=sha256:{'0' * 64}" for each in packages))
    return path


@pytest.mark.slow
def test_the_answers_of_a_database(tmp_path: Path, database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(lock(tmp_path, "sound==1.0", "solid==2"), database) == (NO_FAULT, "2 packages, no known fault")
    faulty = lock(tmp_path, "sound==1.0", "faulty==1.0")
    assert main(["--lock", str(faulty), "--database", database]) == FAULTS
    assert capsys.readouterr().out == "faulty 1.0: OSV-1; fixed in 1.1\n"


@pytest.mark.slow
def test_a_database_that_cannot_be_reached_says_nothing_about_the_packages(tmp_path: Path) -> None:
    code, text = audit(lock(tmp_path, "sound==1.0"), "http://127.0.0.1:9/v1/query")
    assert (code, text.startswith("nothing was audited: http://127.0.0.1:9/v1/query cannot be used")) == (UNKNOWN, True)


def test_a_lock_that_is_old_is_a_warning(tmp_path: Path) -> None:
    path, now = lock(tmp_path, "sound==1.0"), datetime(2026, 12, 1, tzinfo=UTC)
    for age, old in ((MAX_LOCK_AGE, False), (MAX_LOCK_AGE + timedelta(days=1), True)):
        os.utime(path, (0, (now - age).timestamp()))
        assert ("is 91 days old, more than 90" in age_warning(path, now)) is old

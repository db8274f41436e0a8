"""A git host for tests: bare repositories on this disk, and a server that records what is posted to its API."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def git(*arguments: str, folder: Path) -> str:
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@acme.example", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@dataclass
class Remote:
    """A bare repository and a clone to push from."""

    bare: Path
    work: Path

    @classmethod
    def make(cls, folder: Path) -> "Remote":
        bare, work = folder / "remote.git", folder / "work"
        for place in (bare, work):
            place.mkdir(parents=True)
        git("init", "--quiet", "--bare", "--initial-branch=main", folder=bare)
        git("init", "--quiet", "--initial-branch=main", folder=work)
        git("remote", "add", "origin", str(bare), folder=work)
        return cls(bare, work)

    @property
    def url(self) -> str:
        return self.bare.as_uri()

    def push(self, files: dict[str, str | None], branch: str = "main") -> str:
        """Commit files (None removes one), push, and return the commit."""
        for name, content in files.items():
            path = self.work / name
            if content is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
        git("add", "--all", folder=self.work)
        git("commit", "--quiet", "-m", "a change", folder=self.work)
        git("push", "--quiet", "--force", "origin", f"HEAD:refs/heads/{branch}", folder=self.work)
        return git("rev-parse", "HEAD", folder=self.work)


@dataclass
class Recorded:
    """The requests that were posted to the API, and the statuses that it returns."""

    url: str = ""
    status: int = 201
    calls: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)


@contextmanager
def recording_api() -> Iterator[Recorded]:
    """Run an API that records each POST: path, headers, JSON."""
    recorded = Recorded()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            recorded.calls.append((self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(body)))
            self.send_response(recorded.status)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    recorded.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield recorded
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)

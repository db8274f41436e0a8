"""Receivers of alerts on this machine, which record what arrived: a mail server, a web server, and services by name."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

from tests.fixtures.certificates import CertificateAuthority


@dataclass
class Mailbox:
    """The mails that a mail server (RFC 5321) accepted; `answers` replace "250" at the end of a mail, one each."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)


@contextmanager
def mail_server() -> Iterator[Mailbox]:
    """Run a mail server on a free port of 127.0.0.1."""
    box = Mailbox()

    class Session(socketserver.StreamRequestHandler):
        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def handle(self) -> None:
            self.say("220 here")
            while line := self.rfile.readline():
                word = line.decode().strip().upper()
                if word.startswith("RCPT"):
                    box.recipients.append(line.decode().partition("<")[2].partition(">")[0])
                if word == "DATA":
                    self.say("354 go on")
                    self.take()
                elif word == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.say("250 yes")

        def take(self) -> None:
            lines = iter(self.rfile.readline, b".\r\n")
            content = b"".join(line[1:] if line.startswith(b"..") else line for line in lines)
            answer = box.answers.pop(0) if box.answers else "250 taken"
            if answer.startswith("250"):
                box.mails.append(cast(EmailMessage, message_from_bytes(content, policy=policy.default)))
            self.say(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session) as server:
        server.daemon_threads = True
        box.port = server.server_address[1]
        yield from _serving(server, box)


@dataclass
class WebhookReceiver:
    """The headers and bodies posted to a web server. `answers` are statuses instead of 200, one each."""

    url: str = ""
    posts: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)


@contextmanager
def web_server() -> Iterator[WebhookReceiver]:
    """Run a web server on a free port of 127.0.0.1 that accepts POST requests."""
    box = WebhookReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = box.answers.pop(0) if box.answers else 200
            if status == 200:
                box.posts.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        box.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        yield from _serving(server, box)


@dataclass
class PostedRequest:
    """A request posted to a service: host and path as the sender sees them, headers, and body."""

    host: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class FakeServices:
    """The requests posted to internet services, under any name. `answers` are statuses instead of 200.

    A sender whose environment has `variables` reaches them: a proxy, and the authority that certifies their names.
    """

    variables: dict[str, str] = field(default_factory=dict)
    posts: list[PostedRequest] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)


@contextmanager
def services(folder: Path) -> Iterator[FakeServices]:
    """Replace every HTTPS service: a proxy ends each tunnel itself, with a certificate of that name.

    So the sender's own code builds the address, verifies the certificate, and uses TLS and HTTP to the end.
    """
    box, authority = FakeServices(), CertificateAuthority(folder)

    class Tunnel(BaseHTTPRequestHandler):
        host = ""

        def do_CONNECT(self) -> None:
            self.host = self.path.partition(":")[0]
            self.send_response(200)
            self.end_headers()
            self.connection = authority.context(self.host).wrap_socket(self.connection, server_side=True)
            self.rfile = self.connection.makefile("rb")
            self.wfile = cast(Any, self.connection.makefile("wb", buffering=0))
            self.handle_one_request()
            self.close_connection = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = box.answers.pop(0) if box.answers else 200
            if status == 200:
                headers = {name.lower(): value for name, value in self.headers.items()}
                box.posts.append(PostedRequest(self.host, self.path, headers, body))
            self.send_response(status)
            self.send_header("content-type", "application/json")
            said = b"ok" if self.host == "hooks.slack.com" else b"{}"  # Slack's response for success
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    class Proxy(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A sender that does not trust the authority disconnects: this is no error of the proxy."""

    with Proxy(("127.0.0.1", 0), Tunnel) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        box.variables = {"HTTPS_PROXY": address, "https_proxy": address, "NO_PROXY": "", "no_proxy": "",
                         "REQUESTS_CA_BUNDLE": str(authority.file), "SSL_CERT_FILE": str(authority.file)}  # fmt: skip
        yield from _serving(server, box)


def _serving(server: socketserver.BaseServer, box: Any) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield box
    finally:
        server.shutdown()
        thread.join()

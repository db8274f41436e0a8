"""Refuse what a page of another site makes a browser send: Host and Origin allow-lists for HTTP and WebSocket.

A browser reaches every port of its machine for any page that it shows. Such a request names another site in one of
three headers, which no page can set: `Host` (a foreign name that resolves to this machine: DNS rebinding), `Origin`
(requests that a script or form sends, and every WebSocket), or `Sec-Fetch-Site` (images, scripts, frames). A program
sends no `Origin` and no `Sec-Fetch-Site`, and its Host is the address that it was given.
"""

import re
from collections.abc import Iterable

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Names of this machine, with any port: a tunnel has another. No foreign page can have one of them."""

RawHeaders = Iterable[tuple[bytes, bytes]]
Origin = tuple[str, str, int]
"""Scheme, name, port."""

_CONNECTIONS = ("http", "websocket")
_PORTS = {"http": 80, "https": 443}
_AUTHORITY = re.compile(r"([a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
_HEADERS = {"x-content-type-options": "nosniff", "connection": "close"}
"""Headers of a refusal; its body is not read, so the connection cannot be used again."""
_READ = frozenset({"GET", "HEAD"})
_SHOWN_CHARACTERS = 100


class ForeignPageGuard:
    """An ASGI application that answers 403 to requests of foreign pages, and passes all others on.

    Args:
        app: the application.
        addresses: URLs by which people reach the server besides the loopback ones, such as those of a reverse proxy.

    Raises:
        ValueError: an address is not `https://name` or `http://name:port`.
    """

    def __init__(self, app: ASGIApp, addresses: Iterable[str] = ()) -> None:
        self.app, self.rule = app, AllowedAddresses(addresses)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403, or call the application."""
        kind = scope["type"]
        reason = self.rule.refusal(scope.get("method", "GET"), scope["headers"]) if kind in _CONNECTIONS else ""
        if not reason:
            await self.app(scope, receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})  # before its start: the answer is 403
        else:
            await PlainTextResponse(reason, 403, _HEADERS)(scope, receive, send)


class AllowedAddresses:
    """The loopback names and the declared addresses of one server. Raises ValueError as `ForeignPageGuard` does."""

    def __init__(self, addresses: Iterable[str] = ()) -> None:
        self._origins = frozenset(map(parse_address, addresses))
        self._names = LOOPBACK_NAMES | {name for _, name, _ in self._origins}

    def refusal(self, method: str, headers: RawHeaders) -> str:
        """Return why a request is refused, "" for one that no foreign page has sent."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            found.setdefault(name.lower(), []).append(value)
        host = _authority(found.get(b"host", []))
        if host is None or host[0] not in self._names:
            return _reason("Host", found.get(b"host", []), "is not an address of this server")
        if b"origin" in found:
            if not self._is_own(_origin(found[b"origin"]), host):
                return _reason("Origin", found[b"origin"], "is the page of another site")
        elif found.get(b"sec-fetch-site", [b"none"]) not in ([b"none"], [b"same-origin"]):
            opens_page = found.get(b"sec-fetch-mode") == [b"navigate"] and found.get(b"sec-fetch-dest") == [b"document"]
            if not (opens_page and method in _READ):  # a link to a page of ours may be followed
                return _reason("Sec-Fetch-Site", found[b"sec-fetch-site"], "says that another site embeds this")
        return ""

    def _is_own(self, origin: Origin | None, host: tuple[str, int | None]) -> bool:
        """Whether the origin is declared, or is this machine under the very name and port of the Host header."""
        if origin is None:
            return False
        scheme, name, port = origin
        same = name in LOOPBACK_NAMES and (name, port) == (host[0], host[1] or _PORTS[scheme])
        return same or origin in self._origins


def parse_address(address: str) -> Origin:
    """Return scheme, name and port of an address like `https://ratchet.example.com`. Raises ValueError."""
    if (origin := _origin([address.encode()])) is None:
        raise ValueError(f"{address!r} is not the address of a server; write https://name or http://name:port")
    return origin


def _origin(values: list[bytes]) -> Origin | None:
    """Return the origin in the only value of a header, None for "null", several values and everything else."""
    if len(values) != 1:
        return None
    scheme, _, rest = values[0].decode("latin-1").lower().partition("://")
    parsed = _authority([rest.encode("latin-1")]) if scheme in _PORTS else None
    return (scheme, parsed[0], parsed[1] or _PORTS[scheme]) if parsed else None


def _authority(values: list[bytes]) -> tuple[str, int | None] | None:
    """Return name and port in the only value of a header; None if it is anything but a plain `name[:port]`."""
    match = _AUTHORITY.fullmatch(values[0].decode("latin-1").lower()) if len(values) == 1 else None
    return (match[1], int(match[2]) if match[2] else None) if match else None


def _reason(header: str, values: list[bytes], problem: str) -> str:
    shown = ascii(b", ".join(values).decode("latin-1")[:_SHOWN_CHARACTERS])
    return f"refused: the header {header} ({shown}) {problem}; declare the addresses of a server (docs/ports.md)\n"

"""uvicorn's HTTP, which waits for a request's headers as long as somebody likes, with an end to that."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_TIMEOUT_SECONDS = 10.0
"""A connection that has not finished the headers of its request by then is closed."""


class HeaderTimeoutProtocol(HttpToolsProtocol):
    """Closes connections that begin a request and never end its headers, or never begin one."""

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn itself
        """Begin to wait."""
        super().connection_made(transport)
        self._start_timer()

    def on_message_begin(self) -> None:
        """Begin to wait again: a connection may bring several requests."""
        super().on_message_begin()
        self._start_timer()

    def on_headers_complete(self) -> None:
        """Wait no longer: the body has a limit of its own."""
        self._cancel_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._cancel_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        self._cancel_timer()
        self._header_timer = self.loop.call_later(HEADER_TIMEOUT_SECONDS, self._close_connection)

    def _cancel_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _close_connection(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

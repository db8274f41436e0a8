"""The Prefect server of the local stack: on SQLite, closed to foreign pages, with garbage collection in a thread.

`python -m local.prefect_server --port 4200 [--address https://prefect.example.com ...]` listens on 127.0.0.1.

When Python collects garbage in the event loop's thread, Prefect 3.8.8 on SQLite can block for a minute. The reason, and
when this can be removed: docs/decisions/0003-prefect-server-gc.md. Prefect itself checks neither Host nor Origin.
"""

import argparse
import gc
import itertools
import threading
import time

from runtime.foreign_pages import ForeignPageGuard


def collect_garbage_in_thread(pause_seconds: float = 1.0) -> None:
    """Collect garbage only in a separate thread from now on; the oldest generation every 60th time."""

    def collect() -> None:
        for generation in itertools.cycle([1] * 59 + [2]):
            time.sleep(pause_seconds)
            gc.collect(generation)

    gc.disable()
    threading.Thread(target=collect, name="garbage", daemon=True).start()


def main(arguments: list[str] | None = None) -> None:
    """Serve Prefect's API and UI, as `prefect server start` does, until stopped."""
    parser = argparse.ArgumentParser(prog="python -m local.prefect_server", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--address", action="append", default=[], help="address of a reverse proxy; may be repeated")
    options = parser.parse_args(arguments)
    collect_garbage_in_thread()
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    settings = get_current_settings().server
    uvicorn.run(
        ForeignPageGuard(create_app(final=True), options.address),
        port=options.port,
        proxy_headers=False,
        log_level=settings.logging_level.lower(),
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
    )


if __name__ == "__main__":
    main()

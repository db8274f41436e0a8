"""The Prefect server of the local stack: on SQLite, with garbage collection in a separate thread.

`python -m local.prefect_server [OPTION ...]`: the options of `prefect server start`.

When Python collects garbage in the event loop's thread, Prefect 3.8.8 on SQLite can block for a minute. The reason, and
when this can be removed: docs/decisions/0003-prefect-server-gc.md.
"""

import gc
import itertools
import runpy
import sys
import threading
import time


def collect_garbage_in_thread(pause_seconds: float = 1.0) -> None:
    """Collect garbage only in a separate thread from now on; the oldest generation every 60th time."""

    def collect() -> None:
        for generation in itertools.cycle([1] * 59 + [2]):
            time.sleep(pause_seconds)
            gc.collect(generation)

    gc.disable()
    threading.Thread(target=collect, name="garbage", daemon=True).start()


def main(options: list[str]) -> None:
    """Run `prefect server start` with these options until stopped."""
    collect_garbage_in_thread()
    sys.argv = ["prefect", "server", "start", *options]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])

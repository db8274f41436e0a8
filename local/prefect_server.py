"""Prefect's server as the embedded stack runs it: on SQLite, with garbage collected in a thread of its own.

`python -m local.prefect_server [OPTION ...]`: the options of `prefect server start`.

Python collects garbage in whichever thread allocates, so in that of the event loop, too. Prefect 3.8.8 on SQLite
stood still for a whole minute then, now and again: among the garbage was a cursor of a connection on which another
thread was waiting for the database's lock. SQLite lets go of such a cursor when that wait is over, at the earliest
after 60 s (Prefect's `busy_timeout`), for the lock's holder was waiting for the event loop. A thread that does
nothing else may wait for as long as it likes. (The same in another language: TryGhost/node-sqlite3, issue 1394.)
"""

import gc
import itertools
import runpy
import sys
import threading
import time


def collect_aside(pause_seconds: float = 1.0, whole_every: int = 60) -> None:
    """Collect garbage in a thread of its own from now on, and nowhere else.

    Args:
        pause_seconds: between two collections; all but the oldest objects are looked at.
        whole_every: each so many collections, all objects are.
    """

    def collect() -> None:
        for number in itertools.count(1):
            time.sleep(pause_seconds)
            gc.collect(2 if number % whole_every == 0 else 1)

    gc.disable()
    threading.Thread(target=collect, name="garbage", daemon=True).start()


def main(options: list[str]) -> None:
    """Run `prefect server start` with these options until it is stopped."""
    collect_aside()
    sys.argv = ["prefect", "server", "start", *options]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])

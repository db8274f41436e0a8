"""The local Prefect server: its event loop does not wait for a connection that waits for the event loop."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ROOT

DEADLOCK = """
import gc, sqlite3, sys, threading, time
from local.prefect_server import collect_garbage_in_thread

def connect():
    return sqlite3.connect(sys.argv[1], timeout=float(sys.argv[3]), isolation_level=None, check_same_thread=False)

def leave_a_cursor(connection):
    cursor = connection.execute("VALUES (1), (2)")  # half read, and no lock is held for it
    cursor.fetchone()
    cycle = [cursor]
    cycle.append(cycle)

holder, waiter = connect(), connect()
holder.execute("CREATE TABLE numbers (n)")
gc.collect()
gc.disable()
leave_a_cursor(waiter)
gc.enable()
if sys.argv[2] == "aside":
    collect_garbage_in_thread(pause_seconds=0.05)
holder.execute("BEGIN IMMEDIATE")
said, begun = [], threading.Event()

def write():
    begun.set()
    try:
        waiter.execute("INSERT INTO numbers VALUES (3)")
        said.append("written")
    except sqlite3.OperationalError:  # whose words may be those of the other thread, which used the connection, too
        said.append("waited in vain")

waiting = threading.Thread(target=write)
waiting.start()
begun.wait()
time.sleep(float(sys.argv[4]))  # it waits for the lock now, which this thread gives up after a little work
kept = [[number] for number in range(100_000)]  # so much that Python collects garbage here, when it does so at all
holder.execute("COMMIT")
waiting.join()
print(*said)
"""
"""The deadlock: a thread that works and holds the lock, one that waits for it, and a cursor in the garbage."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "busy_seconds", "said"),
    [("anywhere", 5, "waited in vain"), ("aside", 120, "written")],
    ids=["as Python does", "aside"],
)
def test_garbage_of_a_connection_that_waits_holds_up_nobody(
    where: str, busy_seconds: int, said: str, tmp_path: Path
) -> None:
    """Repeated where the second thread was too slow to wait already: it shows what happens when it waits."""
    for pause in (1, 10, 60):
        database = tmp_path / f"{pause}.db"
        command = [sys.executable, "-c", DEADLOCK, str(database), where, str(busy_seconds + pause), str(pause)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.stdout == f"{said}\n":
            break
    assert done.stdout == f"{said}\n", done.stderr


def test_an_unknown_option_ends_it() -> None:
    command = [sys.executable, "-m", "local.prefect_server", "--port", "1", "--no-such-option"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "NO_COLOR": "1"}
    )
    assert done.returncode != 0
    assert "--no-such-option" in done.stdout + done.stderr

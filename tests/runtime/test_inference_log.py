"""The inference log: predictions are logged without delaying a request, and every lost line is counted."""

import gzip
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from runtime.inference_log import MAX_ROWS_PER_LINE, InferenceLog, LoggedRequest, LogLimits
from tests.checkout import ROOT

SLOW = LogLimits(flush_seconds=3600)
"""Nothing is written until a test closes the segments."""


def entry(rows: int = 1, **fields: Any) -> LoggedRequest:
    """Return a predicted request about a customer with a name, a tenure and a contract."""
    columns = {"name": ["Ada"] * rows, "tenure": list(range(rows)), "contract": [None] * rows}
    answer = json.dumps({"predictions": [[0.25, 0.75]] * rows}).encode()
    at = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
    return LoggedRequest(**{"answered_at": at, "request_id": "r1", "version": "7", "rows": rows, "columns": columns,
                    "response_body": answer, "body_bytes": 100, **fields})  # fmt: skip


def segments(root: Path, endpoint: str = "churn") -> list[list[dict[str, Any]]]:
    """Return the lines of each segment, oldest first."""
    paths = sorted((root / endpoint).glob("[!.]*.jsonl.gz"))
    return [[json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()] for path in paths]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[InferenceLog]:
    opened = InferenceLog(tmp_path / "log", SLOW)
    opened.start()
    yield opened
    opened.stop()


def test_an_answered_request_is_written_as_it_was(log: InferenceLog) -> None:
    log.enqueue("churn", entry())
    log.close_segments()
    (line,) = segments(log.root)[0]
    assert line == {
        "at": "2026-11-25T12:00:00+00:00", "id": "r1", "version": "7", "rows": 1,
        "columns": {"name": ["Ada"], "tenure": [0], "contract": [None]},
        "answer": {"predictions": [[0.25, 0.75]]},
    }  # fmt: skip
    assert (log.counts("churn").logged, log.counts("churn").dropped) == (1, 0)


def test_columns_that_are_left_out_or_hashed_never_reach_the_disk(log: InferenceLog) -> None:
    log.enqueue("churn", entry(rows=2, excluded_columns=("tenure",), hashed_columns=("name", "contract")))
    log.close_segments()
    (line,) = segments(log.root)[0]
    assert set(line["columns"]) == {"name", "contract"}
    first, second = line["columns"]["name"]
    assert first == second and len(first) == 64, "equal values stay equal"
    assert line["columns"]["contract"] == [None, None], "nothing stays nothing"
    assert b"Ada" not in b"".join(path.read_bytes() for path in log.root.rglob("*") if path.is_file())
    assert stat.S_IMODE((log.root / "hash.key").stat().st_mode) == 0o600


def test_a_large_request_is_written_in_lines_that_hold_all_its_rows(log: InferenceLog) -> None:
    log.enqueue("churn", entry(rows=2 * MAX_ROWS_PER_LINE + 1))
    log.close_segments()
    lines = segments(log.root)[0]
    assert [line["rows"] for line in lines] == [MAX_ROWS_PER_LINE, MAX_ROWS_PER_LINE, 1]
    assert [tenure for line in lines for tenure in line["columns"]["tenure"]] == list(range(2 * MAX_ROWS_PER_LINE + 1))
    assert all(len(line["answer"]["predictions"]) == line["rows"] for line in lines)


def test_what_finds_no_room_in_memory_is_dropped_and_counted(tmp_path: Path) -> None:
    log = InferenceLog(tmp_path, LogLimits(memory_bytes=250, flush_seconds=3600))
    for _ in range(5):
        log.enqueue("churn", entry(rows=3))
    log.close_segments()
    assert (log.counts("churn").logged, log.counts("churn").dropped) == (6, 9)
    assert "wait to be written" in log.counts("churn").problem


def used_up(folder: Path) -> InferenceLog:
    """Return a log whose share of the disk one segment has used: there was no space for a second request."""
    log = InferenceLog(folder, LogLimits(disk_bytes=1, flush_seconds=3600, retry_seconds=0))
    for _ in range(2):
        log.enqueue("churn", entry())
        log.close_segments()
    return log


def test_a_disk_share_that_is_used_up_is_told(tmp_path: Path) -> None:
    log = used_up(tmp_path)
    assert (log.counts("churn").logged, log.counts("churn").dropped) == (1, 1)
    assert "wait to be collected" in log.counts("churn").problem


def test_room_that_the_collector_makes_on_the_disk_is_used_again(tmp_path: Path) -> None:
    log = used_up(tmp_path)
    next((tmp_path / "churn").glob("*.gz")).unlink()
    log.enqueue("churn", entry())
    log.close_segments()
    assert log.counts("churn").logged == 2


def test_a_full_disk_fails_nothing_and_leaves_whole_lines(tmp_path: Path) -> None:
    """In a process that may write at most 3,000 bytes per file: the kernel cuts the write that exceeds it."""
    program = """
import resource, signal, sys
from pathlib import Path
from tests.runtime.test_inference_log import entry, segments
from runtime.inference_log import InferenceLog, LogLimits
log = InferenceLog(Path(sys.argv[1]), LogLimits(flush_seconds=3600, retry_seconds=0))
log.start()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
for _ in range(40):
    log.enqueue("churn", entry())
log.close_segments()
counts = log.counts("churn")
lines = [line for segment in segments(log.root) for line in segment]
assert counts.logged == len(lines) > 5, (counts, len(lines))
assert counts.dropped == 40 - counts.logged > 5, counts
assert "File too large" in counts.problem, counts
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
                          check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_folder_that_cannot_be_written_drops_and_counts(tmp_path: Path) -> None:
    blocked = tmp_path / "log"
    blocked.write_text("a file where the folder should be")
    log = InferenceLog(blocked, SLOW)
    log.start()
    log.enqueue("churn", entry())
    log.close_segments()
    assert (log.counts("churn").logged, log.counts("churn").dropped) == (0, 1)
    assert "the disk refuses it" in log.counts("churn").problem
    log.stop()


def test_a_value_that_json_cannot_say_loses_that_request_alone(log: InferenceLog) -> None:
    log.enqueue("churn", entry(columns={"name": [object()]}))
    log.enqueue("churn", entry())
    log.close_segments()
    assert (log.counts("churn").logged, log.counts("churn").dropped) == (1, 1)


def test_what_a_killed_server_had_begun_becomes_a_segment_without_its_torn_line(tmp_path: Path) -> None:
    folder = tmp_path / "churn"
    folder.mkdir()
    (folder / ".begun-20261125T120000000000-abc.jsonl").write_bytes(b'{"rows": 1}\n{"ro')
    log = InferenceLog(tmp_path, SLOW)
    log.start()
    assert segments(tmp_path) == [[{"rows": 1}]]
    assert [path.name for path in folder.iterdir()] == ["20261125T120000000000-abc.jsonl.gz"]
    log.stop()


def test_a_segment_that_is_full_or_old_is_closed_by_itself(tmp_path: Path) -> None:
    log = InferenceLog(tmp_path, LogLimits(segment_bytes=1, flush_seconds=0.01))
    log.start()
    for _ in range(3):
        log.enqueue("churn", entry())
    log.stop()
    assert [len(lines) for lines in segments(tmp_path)] == [1, 1, 1]


def test_endpoints_have_segments_of_their_own(log: InferenceLog) -> None:
    log.enqueue("churn", entry())
    log.enqueue("price", entry(rows=2))
    log.close_segments()
    assert [line["rows"] for line in segments(log.root)[0]] == [1]
    assert [line["rows"] for line in segments(log.root, "price")[0]] == [2]
    assert log.counts("never asked").logged == 0

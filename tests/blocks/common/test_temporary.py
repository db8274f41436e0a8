"""Temporary folders: removed after use; those of killed processes are removed by the next process."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from blocks.common.temporary_folders import temporary_folder
from blocks.engines.duckdb import DuckDBEngine
from blocks.tracking.predictor_process import PredictorProcess
from tests.processes import messages_until_killed

NOW = 1_000_000_000.0


def age(folder: Path) -> None:
    """Make a folder older than any that is just being created."""
    hour_ago = time.time() - 3_600
    os.utime(folder, (hour_ago, hour_ago), follow_symlinks=False)


def test_a_folder_is_empty_when_lent_and_gone_afterwards(tmp_path: Path) -> None:
    with temporary_folder(tmp_path / "not" / "there", "work-") as folder:
        assert folder.parent == tmp_path / "not" / "there"
        assert list(folder.iterdir()) == []
        (folder / "part").mkdir()
    assert not folder.exists()
    with pytest.raises(ValueError, match="broken"), temporary_folder(tmp_path, "work-") as folder:
        raise ValueError("broken")
    assert not folder.exists()


def hold(below: Path, say: Callable[[Path], None]) -> None:
    with temporary_folder(below, "work-") as folder:
        (folder / "half").write_bytes(b"written")
        say(folder)
        signal.pause()


@pytest.mark.slow  # each process imports its modules again
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (left,) = messages_until_killed(hold, tmp_path, words=1, seconds=0.0)
    assert (left / "half").exists()
    age(left)
    with temporary_folder(tmp_path, "work-") as folder:
        assert list(tmp_path.iterdir()) == [folder]


def test_what_is_in_use_or_was_just_made_or_is_named_otherwise_stays(tmp_path: Path) -> None:
    for name, seconds in (("work-new", 60), ("others-old", 61), ("work-dead", 61)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (NOW - seconds,) * 2)
    with temporary_folder(tmp_path, "work-", lambda: NOW) as mine:
        os.utime(mine, (NOW - 61,) * 2)
        with temporary_folder(tmp_path, "work-", lambda: NOW) as second:
            assert {path.name for path in tmp_path.iterdir()} == {"work-new", "others-old", mine.name, second.name}


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "elsewhere" / "precious"
    precious.mkdir(parents=True)
    link = tmp_path / "work-link"
    link.symlink_to(precious.parent)
    age(link)
    with temporary_folder(tmp_path, "work-"):
        pass
    assert precious.is_dir()
    assert link.is_symlink()


def query(below: Path, say: Callable[[str], None]) -> None:
    reader = DuckDBEngine(spill=below, batch_rows=10).stream("SELECT range AS x FROM range(1_000_000)", {})
    reader.read_next_batch()
    say("reading")
    signal.pause()


@pytest.mark.slow  # each process imports its modules again
def test_the_next_query_removes_what_a_killed_one_spilled(tmp_path: Path) -> None:
    messages_until_killed(query, tmp_path, words=1, seconds=0.0)
    (left,) = tmp_path.iterdir()
    age(left)
    assert DuckDBEngine(spill=tmp_path).query("SELECT 1 AS one", {}).num_rows == 1
    assert list(tmp_path.iterdir()) == []


def predict(say: Callable[[Path], None]) -> None:
    predictor = PredictorProcess([])
    predictor._process.kill()
    say(predictor._home)
    signal.pause()


@pytest.mark.slow  # each process imports its modules again
def test_a_predictor_that_is_killed_leaves_nothing_nor_when_its_owner_is_killed_too() -> None:
    predictor = PredictorProcess([])
    predictor._process.kill()
    predictor.close()
    assert not predictor._home.exists()
    (left,) = messages_until_killed(predict, words=1, seconds=0.0)
    assert left.is_dir()
    age(left)
    PredictorProcess([]).close()
    assert not left.exists()

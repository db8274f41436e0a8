"""Errors of the SQL ledger: the database is locked, damaged, unreachable, or no database at all."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from blocks.common.errors import Corrupt, Rejected, Unavailable
from blocks.database.ledger import SqlLedger

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)


def test_a_locked_file_is_unavailable_and_works_once_it_is_free(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("blocks.database.engine._LOCK_SECONDS", 0.2)
    ledger = SqlLedger(url=f"sqlite:///{tmp_path}/ledger.db")
    ledger.effects().intend("before", "d", NOW)
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        ledger.effects().intend("k", "d", NOW)
    assert ledger.effects().effect("before") is not None, "readers go on"
    other.rollback()
    other.close()
    assert ledger.effects().intend("k", "d", NOW).state == "intent"


def test_a_damaged_file_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"this is no database at all" * 200)
    with pytest.raises(Corrupt, match="not a database"):
        SqlLedger(url=f"sqlite:///{tmp_path}/ledger.db").effects().effect("k")


def test_a_server_that_does_not_answer_is_unavailable_and_its_password_stays_secret() -> None:
    ledger = SqlLedger(url="postgresql://ratchet:hunter2@127.0.0.1:1/ledger?password=hunter2")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1/ledger") as caught:
        ledger.effects().effect("k")
    causes = [caught.value, caught.value.__cause__, ledger, ledger.url]
    assert not any("hunter2" in f"{each} {each!r}" for each in causes)


def test_a_folder_that_cannot_be_made_is_refused_for_good(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Rejected, match=r"ledger\.db"):
        SqlLedger(url=f"sqlite:///{tmp_path}/file/ledger.db").effects().effect("k")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("no url, but hunter2", "cannot be read"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("mysql://u:hunter2@h/d", "mysql is not supported"),
    ],
)
def test_a_url_that_cannot_hold_a_ledger_is_refused(url: str, words: str) -> None:
    with pytest.raises(Rejected, match=words) as caught:
        SqlLedger(url=url).effects().effect("k")
    assert "hunter2" not in str(caught.value)


def test_sqlite_flushes_every_write_and_keeps_a_write_ahead_log(tmp_path: Path) -> None:
    ledger = SqlLedger(url=f"sqlite:///{tmp_path}/deep/er/ledger.db")
    pragmas = ("journal_mode", "synchronous", "foreign_keys")
    read = ledger.database().read
    found = [read(lambda c, name=name: c.exec_driver_sql(f"PRAGMA {name}").scalar()) for name in pragmas]
    assert found == ["wal", 2, 1]

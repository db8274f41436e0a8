"""Atomic writes: a file is replaced completely or not at all."""

import os
from pathlib import Path

import pytest

from runtime.files import write_text_atomically


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    for text in ("one", "Zoë"):
        write_text_atomically(tmp_path / "a.json", text)
        assert (tmp_path / "a.json").read_text(encoding="utf-8") == text
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_file_for_its_owner_alone_is_never_anybody_elses(tmp_path: Path) -> None:
    path = tmp_path / "head"
    path.write_text("before")
    path.chmod(0o644)
    write_text_atomically(path, "after", mode=0o600)
    assert (path.stat().st_mode & 0o777, path.read_text()) == (0o600, "after")


def test_what_cannot_be_written_leaves_what_was_there_and_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text_atomically(tmp_path / "a.json", "before")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text_atomically(tmp_path / "a.json", "after")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "before")]

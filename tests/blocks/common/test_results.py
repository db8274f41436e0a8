"""Prefect's results in garbage collection: measured and removed by name. Stack tests cover those in use."""

import os
from pathlib import Path

from blocks.common.collectable import ResultArtifacts


def test_a_folder_that_is_not_there_keeps_nothing(tmp_path: Path) -> None:
    assert ResultArtifacts(tmp_path / "none").collectables([]) == ()


def test_a_result_is_measured_and_removed_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "abc").write_text("12345")
    os.utime(tmp_path / "abc", (1000, 1000))
    results = ResultArtifacts(tmp_path)
    assert results.size_bytes("result:abc") == 5
    results.delete_collectables("result:abc")
    assert list(tmp_path.iterdir()) == []

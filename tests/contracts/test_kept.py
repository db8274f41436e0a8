"""Collectable artifacts of trainers and endpoints in folders: listed, measured, and removed for good."""

import os
from pathlib import Path

import pytest

from blocks.common.collectable import DELETING_PREFIX, ArtifactOwner, FolderArtifacts
from blocks.common.errors import NotFound, Rejected
from blocks.trainers.local import LocalTrainer
from tests.fixtures.training_jobs import FAILING, HEALTHY, a_job
from tests.waiting import wait_for


def tree(root: Path, *files: str) -> FolderArtifacts:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("12345")
    return FolderArtifacts(root, "tier", depth=2)


def test_a_place_is_listed_with_its_size_and_its_newest_time(tmp_path: Path) -> None:
    folders = tree(tmp_path, "churn/a/train/rows", "churn/a/holdout/rows", "churn/b/rows")
    for path in (tmp_path / "churn" / "a").rglob("*"):
        os.utime(path, (1000, 1000))
    os.utime(tmp_path / "churn" / "a", (1000, 1000))
    os.utime(tmp_path / "churn" / "a" / "train" / "rows", (2000, 2000))
    first, second = folders.collectables_of((tmp_path / "churn").glob("*"))
    assert (first.key, second.key) == ("tier:churn/a", "tier:churn/b")
    assert first.last_used.timestamp() == 2000 < second.last_used.timestamp()
    assert (folders.size_bytes("tier:churn/a"), folders.size_bytes("tier:churn/gone")) == (10, 0)


def test_removing_takes_the_place_alone_and_may_be_repeated(tmp_path: Path) -> None:
    folders = tree(tmp_path, "churn/a/rows", "churn/b/rows", f"churn/{DELETING_PREFIX}c/rows")
    for _ in range(2):
        folders.delete_collectables("tier:churn/a")
    assert [path.name for path in sorted((tmp_path / "churn").iterdir())] == ["b"]


def test_a_link_is_removed_and_not_what_it_points_to(tmp_path: Path) -> None:
    folders = tree(tmp_path / "in", "churn/a/rows")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x" * 100)
    (tmp_path / "in" / "churn" / "a" / "link").symlink_to(tmp_path / "out", target_is_directory=True)
    (tmp_path / "in" / "churn" / "b").symlink_to(tmp_path / "out", target_is_directory=True)
    assert folders.size_bytes("tier:churn/a") < 100
    folders.delete_collectables("tier:churn/a")
    folders.delete_collectables("tier:churn/b")
    assert (tmp_path / "out" / "precious").exists() and not (tmp_path / "in" / "churn" / "b").exists()


@pytest.mark.parametrize(
    "key", ["tier:churn", "tier:churn/a/rows", "tier:../x", "tier:churn/..", "tier:", "tier:/a", "run:churn/a", "tier"]
)
def test_what_is_no_key_of_these_folders_is_refused(tmp_path: Path, key: str) -> None:
    folders = tree(tmp_path / "in", "churn/a/rows")
    with pytest.raises(Rejected, match="not deleted"):
        folders.delete_collectables(key)
    assert (tmp_path / "in" / "churn" / "a" / "rows").exists()


def test_a_keeper_keeps_nothing_unless_it_says_so() -> None:
    assert (ArtifactOwner().collectables(["churn"]), ArtifactOwner().size_bytes("run:1")) == ((), 0)
    with pytest.raises(Rejected):
        ArtifactOwner().delete_collectables("run:1")


def test_attempts_of_ended_jobs_go_one_by_one_and_the_job_with_the_last(tmp_path: Path) -> None:
    trainer = LocalTrainer(root=tmp_path / "jobs", grace_seconds=1)
    job = a_job(tmp_path / "bad", FAILING, "churn-bad")
    for _ in range(2):
        trainer.submit(job)
        wait_for(lambda: trainer.state(job.name).status != "InProgress")
    first, second = trainer.collectables(["whatever"])
    assert (first.key, second.key, first.keep_reason, second.keep_reason) == (
        "attempt:churn-bad/001",
        "attempt:churn-bad/002",
        "",
        "",
    )
    assert trainer.size_bytes(second.key) > 0
    trainer.delete_collectables(first.key)
    assert trainer.state(job.name).status == "Failed"
    trainer.delete_collectables(second.key)
    with pytest.raises(NotFound):
        trainer.state(job.name)
    assert trainer.collectables([]) == ()
    assert (tmp_path / "bad" / "train" / "part-0.csv").exists()


def test_a_running_attempt_is_held(tmp_path: Path) -> None:
    trainer = LocalTrainer(root=tmp_path / "jobs", grace_seconds=1)
    job = a_job(tmp_path / "good", HEALTHY.replace('.get("sleep", "0")', '.get("sleep", "600")'))
    trainer.submit(job)
    (kept,) = trainer.collectables([])
    assert kept.keep_reason == "it is running"
    trainer.stop(job.name)


def test_a_key_that_is_no_attempt_removes_no_job(tmp_path: Path) -> None:
    trainer = LocalTrainer(root=tmp_path / "jobs")
    (tmp_path / "jobs" / "churn-1" / "001").mkdir(parents=True)
    for key in ("attempt:churn-1", "attempt:..", "attempt:churn-1/../..", "run:churn-1/001"):
        with pytest.raises(Rejected):
            trainer.delete_collectables(key)
    assert (tmp_path / "jobs" / "churn-1" / "001").is_dir()

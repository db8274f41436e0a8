"""The code of a run: it is that of exactly the pushed commit, or the run does not start."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blocks.common.errors import NotFound, PortError
from deployments import pull
from deployments.checkout import checkout, main
from tasks.shared.code import code_provenance
from tasks.shared.rules.refusal import Refusal
from tests.fakes.git_hosts import Remote, git


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote.make(tmp_path)


def test_a_checkout_is_that_commit_though_the_branch_has_moved_on(tmp_path: Path, remote: Remote) -> None:
    first = remote.push({"a.txt": "one"})
    second = remote.push({"a.txt": "two"})
    one = checkout(remote.url, first, tmp_path / "c")
    assert ((one / "a.txt").read_text(), one.name) == ("one", first)
    two = checkout(remote.url, second, tmp_path / "c")
    assert (two / "a.txt").read_text() == "two"
    assert git("rev-list", "HEAD", folder=two).split() == [second, first], "with its history, which tells the authors"
    made = code_provenance(one)
    assert (made.commit, made.patch_digest) == (first, "")


def test_a_checkout_is_made_once_and_needs_no_repository_afterwards(tmp_path: Path, remote: Remote) -> None:
    commit = remote.push({"a.txt": "one"})
    place = checkout(remote.url, commit, tmp_path / "c")
    assert checkout("file:///gone.git", commit, tmp_path / "c") == place


def test_a_checkout_that_was_written_into_is_made_anew(tmp_path: Path, remote: Remote) -> None:
    commit = remote.push({"a.txt": "one", ".gitignore": "__pycache__/\n"})
    place = checkout(remote.url, commit, tmp_path / "c")
    (place / "__pycache__").mkdir()
    assert checkout("file:///gone.git", commit, tmp_path / "c") == place, "what git ignores may be there"
    (place / "a.txt").write_text("tampered")
    assert (checkout(remote.url, commit, tmp_path / "c") / "a.txt").read_text() == "one"
    (place / "extra.py").write_text("import os")
    assert not (checkout(remote.url, commit, tmp_path / "c") / "extra.py").exists()


def test_a_commit_that_is_not_there_is_refused_and_leaves_nothing(tmp_path: Path, remote: Remote) -> None:
    remote.push({"a.txt": "one"})
    with pytest.raises(NotFound, match="does not have the commit"):
        checkout(remote.url, "f" * 40, tmp_path / "c")
    assert [path.name for path in (tmp_path / "c").iterdir()] == []


@pytest.mark.parametrize("commit", ["main", "", "abc", "0" * 40, "--upload-pack=x", "F" * 40])
def test_only_a_whole_commit_id_will_do(tmp_path: Path, remote: Remote, commit: str) -> None:
    problem = (
        "zeros are the id of no commit" if commit == "0" * 40 else "is not a full commit id .*40 or 64 hexadecimal"
    )
    with pytest.raises(Refusal, match=problem):
        checkout(remote.url, commit, tmp_path / "c")


def test_another_program_as_transport_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PortError, match="not allowed"):
        checkout(f"ext::touch {tmp_path}/pwned", "f" * 40, tmp_path / "c")
    assert not (tmp_path / "pwned").exists()


def test_checkouts_that_no_run_asked_for_in_a_week_are_removed(tmp_path: Path, remote: Remote) -> None:
    first, second = remote.push({"a.txt": "one"}), remote.push({"a.txt": "two"})
    old = checkout(remote.url, first, tmp_path / "c")
    os.utime(old, (time.time() - 8 * 86_400,) * 2)
    new = checkout(remote.url, second, tmp_path / "c")
    assert (old.exists(), new.exists()) == (False, True)


def test_what_is_not_set_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main({"RATCHET_COMMIT": "f" * 40, "RATCHET_CHECKOUTS": str(tmp_path)}) == 1
    assert "'RATCHET_REPOSITORY' is not set" in capsys.readouterr().err


def test_without_a_commit_the_code_is_that_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RATCHET_COMMIT", raising=False)
    assert pull.check_out_code() == {"directory": str(pull.ROOT)}


STEP = """
import sys
sys.path[:] = [sys.argv[1], *sys.path]
from deployments.pull import check_out_code
import os
folder = check_out_code()["directory"]
os.chdir(folder)
assert sys.argv[1] not in sys.path, sys.path
import flows
print(folder, flows.SAYS)
"""


def test_the_pull_step_leads_to_the_commit_s_own_modules(tmp_path: Path, remote: Remote) -> None:
    commit = remote.push({"flows/__init__.py": "SAYS = 'pushed'"})
    remote.push({"flows/__init__.py": "SAYS = 'later'"})
    variables = {"RATCHET_COMMIT": commit, "RATCHET_REPOSITORY": remote.url, "RATCHET_CHECKOUTS": str(tmp_path / "c")}
    command = [sys.executable, "-c", STEP, str(pull.ROOT)]
    done = subprocess.run(
        command, env={**os.environ, **variables}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "c" / commit), "pushed"]


def test_a_run_whose_commit_cannot_be_had_fails_with_the_reason(
    tmp_path: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.push({"a.txt": "one"})
    monkeypatch.setenv("RATCHET_COMMIT", "f" * 40)
    monkeypatch.setenv("RATCHET_REPOSITORY", remote.url)
    monkeypatch.setenv("RATCHET_CHECKOUTS", str(tmp_path / "c"))
    with pytest.raises(RuntimeError, match="does not have the commit"):
        pull.check_out_code()
    assert git("rev-parse", "HEAD", folder=remote.work)

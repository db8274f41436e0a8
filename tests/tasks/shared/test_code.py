"""Code in git: a version's code is recorded to the last edited byte, and its authors are known."""

import subprocess
from pathlib import Path

import pytest

from tasks.shared.code import code_provenance, unapproved_authors
from tests.fixtures.model_folders import write_models

TEST = "Test <test@example.com>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a checkout with the models `price` and `demand`."""
    return write_models(tmp_path)


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def repository(root: Path) -> Path:
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", "a team's models")
    return root


def test_a_clean_checkout_is_its_commit_and_no_patch(repository: Path) -> None:
    made_by = code_provenance(repository)
    assert len(made_by.commit) == 40
    assert (made_by.patch_digest, made_by.patch) == ("", "")


def edit(root: Path, text: str = "team@example.com") -> None:
    path = root / "models" / "price" / "model.yaml"
    path.write_text(path.read_text().replace("team@", text))


def test_an_edit_is_in_the_patch_and_its_digest(repository: Path) -> None:
    clean = code_provenance(repository)
    edit(repository, "new@")
    once = code_provenance(repository)
    assert once.commit == clean.commit
    assert once.patch_digest
    assert "+owner: new@example.com" in once.patch
    assert code_provenance(repository) == once, "the same edit has the same digest"


def test_a_staged_edit_counts_as_an_edit(repository: Path) -> None:
    edit(repository, "new@")
    unstaged = code_provenance(repository)
    git(repository, "add", "--all")
    assert code_provenance(repository) == unstaged


def test_a_new_file_is_in_the_patch_and_its_digest(repository: Path) -> None:
    program = repository / "models" / "price" / "train.py"
    program.write_text("SEED = 1\n")
    one = code_provenance(repository)
    assert "+SEED = 1" in one.patch
    program.write_text("SEED = 2\n")
    assert code_provenance(repository).patch_digest not in ("", one.patch_digest)


FILES = [
    pytest.param("my train.py", b"SEED = 1\n", id="a space in the name"),
    pytest.param("weights.bin", b"\x00\x01\xff", id="binary"),
    pytest.param("__init__.py", b"", id="empty"),
    pytest.param("größe.py", b"SEED = 1\n", id="letters beyond ASCII"),
    pytest.param('a"b.py', b"SEED = 1\n", id="a quote in the name"),
    pytest.param("-train.py", b"SEED = 1\n", id="a name like an option"),
]


@pytest.mark.parametrize(("name", "content"), FILES)
def test_a_new_file_counts_whatever_it_is_called_or_holds(repository: Path, name: str, content: bytes) -> None:
    (repository / "models" / "price" / name).write_bytes(content)
    assert code_provenance(repository).patch_digest != ""


def test_files_that_git_ignores_do_not_count(repository: Path) -> None:
    (repository / ".gitignore").write_text(".ratchet\n")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "-m", "ignore state")
    (repository / ".ratchet").mkdir()
    (repository / ".ratchet" / "ledger.db").write_text("state")
    assert code_provenance(repository).patch_digest == ""


@pytest.mark.parametrize(
    "program",
    [b"SEED = 1\n", b"SEED = 1\r\n"],
    ids=["plain", "Windows line ends"],
)
def test_a_patch_puts_back_what_was_on_top_of_the_commit(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, program: bytes
) -> None:
    edit(repository, "new@")
    (repository / "models" / "price" / "train.py").write_bytes(program)
    copy = tmp_path_factory.mktemp("again") / "checkout"
    git(repository, "clone", "--quiet", str(repository), str(copy))
    (copy / "provenance.patch").write_text(code_provenance(repository).patch)
    git(copy, "apply", "provenance.patch")
    assert "new@example.com" in (copy / "models" / "price" / "model.yaml").read_text()
    assert (copy / "models" / "price" / "train.py").read_bytes() == program


def test_files_outside_git_say_so(root: Path) -> None:
    made_by = code_provenance(root)
    assert (made_by.commit, made_by.patch_digest, made_by.patch) == ("not in git", "", "")


def test_a_repository_without_a_commit_is_not_in_git(root: Path) -> None:
    git(root, "init", "--quiet")
    assert code_provenance(root).commit == "not in git"


def commit(root: Path, who: str, file: str) -> str:
    """Commit a change of a file as someone, and return the commit."""
    with (root / file).open("a") as stream:
        stream.write("# changed\n")
    git(root, "commit", "--quiet", "--all", "-m", "a change", "--author", f"{who} <{who.lower()}@example.com>")
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_authors_of_a_model_are_those_who_changed_its_folder_since_a_commit(repository: Path) -> None:
    then = commit(repository, "Ann", "models/price/model.yaml")
    commit(repository, "Bob", "models/price/expectations.yaml")
    commit(repository, "Cid", "models/demand/model.yaml")
    last = commit(repository, "Dan", "models/price/model.yaml")
    dan, bob, ann = "Dan <dan@example.com>", "Bob <bob@example.com>", "Ann <ann@example.com>"
    assert unapproved_authors("price", then, repository) == (dan, TEST, bob), "those who committed count as well"
    assert unapproved_authors("price", last, repository) == (dan, TEST), (
        "of the last commit, when there is no newer one"
    )
    everyone = (dan, TEST, bob, ann)
    assert unapproved_authors("price", root=repository) == everyone, "of all of history, when nothing serves"
    assert unapproved_authors("price", "0" * 40, repository) == everyone, "and when that commit is unknown"
    assert unapproved_authors("demand", then, repository) == ("Cid <cid@example.com>", TEST)
    assert unapproved_authors("price--dana", then, repository) == unapproved_authors("price", then, repository), (
        "the code is the same"
    )
    assert unapproved_authors("price", root=repository, commit=then) == (ann, TEST), "of the code that was trained"


def test_who_changes_a_folder_without_committing_is_an_author(repository: Path) -> None:
    git(repository, "config", "user.name", "Eve")
    git(repository, "config", "user.email", "eve@example.com")
    (repository / "models" / "price" / "train.py").write_text("print()")
    assert "Eve <eve@example.com>" in unapproved_authors("price", root=repository)
    assert "Eve <eve@example.com>" not in unapproved_authors("demand", root=repository)
    assert "Eve <eve@example.com>" in unapproved_authors("demand", root=repository, has_patch=True), (
        "what the training ran on top of the commit is hers, wherever it is"
    )


def test_outside_git_the_author_of_a_model_is_unknown_and_said_to_be(root: Path) -> None:
    (author,) = unapproved_authors("price", root=root)
    assert author == "unknown history (the code is not in git)"

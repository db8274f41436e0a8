"""Model folders: a model is found by its folder's name, and a version's code is recorded to the last edited byte."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.shared.models import code_provenance, load_model, model_names, unapproved_authors
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.spec_cases import GOOD

RULES = "name: price\nminimum_rows: 1\nexpectations: []\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a checkout with the models `price` and `demand`."""
    for name in ("price", "demand"):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "model.yaml").write_text(GOOD.replace("name: price", f"name: {name}"))
        (folder / "expectations.yaml").write_text(RULES)
    return tmp_path


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def repository(root: Path) -> Path:
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", "a team's models")
    return root


def test_a_model_is_its_folder_and_what_its_file_says(root: Path) -> None:
    model = load_model("price", root)
    assert (model.folder, model.spec.name) == (root / "models" / "price", "price")
    assert model.expectations_file() == root / "models" / "price" / "expectations.yaml"


def test_only_folders_with_a_model_yaml_are_models(root: Path) -> None:
    (root / "models" / "notes").mkdir()
    assert model_names(root) == ["demand", "price"]


def test_an_unknown_model_is_refused_with_the_nearest_name(root: Path) -> None:
    with pytest.raises(Refusal, match=r"(?s)'prcie'.*Did you mean 'price'\?"):
        load_model("prcie", root)


@pytest.mark.parametrize("name", ["zebra", "../models/price", ""], ids=["nothing near", "a path", "empty"])
def test_a_name_that_is_near_nothing_is_refused_with_all_names(root: Path, name: str) -> None:
    with pytest.raises(Refusal, match="no such model"):
        load_model(name, root)
    with pytest.raises(Refusal, match=r"There are: demand, price\."):
        load_model("zebra", root)


def test_a_name_that_is_not_that_of_the_folder_is_refused(root: Path) -> None:
    shutil.copytree(root / "models" / "price", root / "models" / "copied")
    with pytest.raises(Refusal, match=r"(?s)models/copied/model\.yaml.*'price'.*name: copied"):
        load_model("copied", root)


def test_a_model_in_a_namespace_is_the_same_folder_under_its_own_name(root: Path) -> None:
    shared, own = load_model("price", root), load_model("price--dana", root)
    assert (own.folder, own.spec.name, shared.spec.name) == (shared.folder, "price--dana", "price")
    assert own.spec == shared.spec.model_copy(update={"name": "price--dana"}), "and the rest is as the file says"
    assert own.expectations_file() == shared.expectations_file()
    assert model_names(root) == ["demand", "price"], "a namespace is no folder"


@pytest.mark.parametrize(
    ("name", "words"),
    [("prcie--dana", r"Did you mean 'price'"), ("price--", "not a valid namespace"), ("price--a--b", "not a valid namespace"),
     ("--dana", "no such model"), ("price--../x", "not a valid namespace")],
)  # fmt: skip
def test_a_namespace_of_no_model_or_none_at_all_is_refused(root: Path, name: str, words: str) -> None:
    with pytest.raises(Refusal, match=f"(?s){words}"):
        load_model(name, root)


def test_a_folder_named_like_a_model_in_a_namespace_is_refused(root: Path) -> None:
    shutil.copytree(root / "models" / "price", root / "models" / "price--dana")
    with pytest.raises(Refusal, match=r"(?s)models/price--dana.*no folder.*Rename the folder"):
        load_model("price--dana", root)
    assert load_model("price--max", root).spec.name == "price--max"


def test_a_mistake_in_model_yaml_is_told_with_file_and_line(root: Path) -> None:
    path = root / "models" / "price" / "model.yaml"
    path.write_text(path.read_text().replace("seed: 7", "seeed: 7"))
    with pytest.raises(Refusal, match=r"(?s)models/price/model\.yaml.*14.*seeed"):
        load_model("price", root)


def test_a_model_without_expectations_is_refused(root: Path) -> None:
    (root / "models" / "price" / "expectations.yaml").unlink()
    with pytest.raises(Refusal, match=r"(?s)models/price/expectations\.yaml.*no expectations.*Add the file"):
        load_model("price", root).expectations_file()
    with pytest.raises(Refusal, match="no expectations"):
        load_model("price", root).expectation_suite()


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
    (repository / name).write_bytes(content)
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
    commit(repository, "Dan", "models/price/model.yaml")
    assert unapproved_authors("price", then, repository) == ("Dan <dan@example.com>", "Bob <bob@example.com>")
    assert unapproved_authors("price", root=repository) == ("Dan <dan@example.com>",), (
        "of the last commit, when nothing serves"
    )
    assert unapproved_authors("price", "0" * 40, repository) == ("Dan <dan@example.com>",), (
        "and when its commit is unknown"
    )
    assert unapproved_authors("demand", then, repository) == ("Cid <cid@example.com>",)
    assert unapproved_authors("price--dana", then, repository) == unapproved_authors("price", then, repository), (
        "the code is the same"
    )


def test_who_changes_a_folder_without_committing_is_an_author(repository: Path) -> None:
    git(repository, "config", "user.name", "Eve")
    git(repository, "config", "user.email", "eve@example.com")
    (repository / "models" / "price" / "train.py").write_text("print()")
    assert "Eve <eve@example.com>" in unapproved_authors("price", root=repository)
    assert "Eve <eve@example.com>" not in unapproved_authors("demand", root=repository)


def test_outside_git_a_model_has_no_known_author(root: Path) -> None:
    assert unapproved_authors("price", root=root) == ()

"""Model folders: a model is found by its folder's name."""

import shutil
from pathlib import Path

import pytest

from tasks.shared.models import load_model, model_names
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.model_folders import write_models


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a checkout with the models `price` and `demand`."""
    return write_models(tmp_path)


def test_a_model_is_its_folder_and_what_its_file_says(root: Path) -> None:
    model = load_model("price", root)
    assert (model.folder, model.spec.name) == (root / "models" / "price", "price")
    assert model.expectations_text() == (root / "models" / "price" / "expectations.yaml").read_text()


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
    assert own.expectations_text() == shared.expectations_text()
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
        load_model("price", root).expectations_text()
    with pytest.raises(Refusal, match="no expectations"):
        load_model("price", root).expectation_suite()

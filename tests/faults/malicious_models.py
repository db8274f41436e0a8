"""Models that would run code when they are loaded, or fill the memory; where code of theirs runs it makes a file.

Eight kinds, some in more than one dress.
"""

import gzip
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from runtime.inspection import MAX_MLMODEL_BYTES


class Touch:
    """Pickled, it becomes an order to make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def plain(folder: Path) -> Path:
    """Lay down what a good model looks like, without training one: a skops archive with a schema."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "model.skops", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", json.dumps({"__class__": "LogisticRegression", "__module__": "sklearn"}))
    describe(folder)
    (folder / "requirements.txt").write_text("scikit-learn\n")
    return folder


def describe(folder: Path, pyfunc: dict[str, Any] | None = None, sklearn: dict[str, Any] | None = None) -> None:
    """Write MLmodel: that of a scikit-learn pipeline in skops' format, with changes."""
    own = {
        "loader_module": "mlflow.sklearn",
        "model_path": "model.skops",
        "predict_fn": "predict",
        "python_version": "3",
    }
    kept = {"pickled_model": "model.skops", "serialization_format": "skops", "skops_trusted_types": []}
    flavors = {"python_function": own | (pyfunc or {}), "sklearn": kept | (sklearn or {})}
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors, "model_uuid": "0" * 32}))


def a_pickle(model: Path, marker: Path) -> None:
    (model / "model.pkl").write_bytes(pickle.dumps(Touch(marker)))
    describe(model, {"model_path": "model.pkl"}, {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"})


def a_pickle_of_the_oldest_protocol(model: Path, marker: Path) -> None:
    (model / "model.pkl").write_bytes(pickle.dumps(Touch(marker), protocol=0))
    describe(model, {"model_path": "model.pkl"}, {"pickled_model": "model.pkl", "serialization_format": "pickle"})


def a_pickle_named_skops(model: Path, marker: Path) -> None:
    (model / "model.skops").write_bytes(pickle.dumps(Touch(marker)))


def a_pickle_of_which_mlmodel_does_not_speak(model: Path, marker: Path) -> None:
    (model / "notes.txt").write_bytes(pickle.dumps(Touch(marker)))


def a_second_model_inside(model: Path, marker: Path) -> None:
    (model / "sub").mkdir()
    (model / "sub" / "model.pkl").write_bytes(pickle.dumps(Touch(marker), protocol=0))
    describe(
        model / "sub", {"model_path": "model.pkl"}, {"pickled_model": "model.pkl", "serialization_format": "pickle"}
    )
    describe(model, {"data": "sub"})


def a_gzipped_pickle(model: Path, marker: Path) -> None:
    (model / "model.pkl.gz").write_bytes(gzip.compress(pickle.dumps(Touch(marker))))
    describe(
        model, {"loader_module": "mlflow.sklearn", "model_path": "model.pkl.gz"}, {"pickled_model": "model.pkl.gz"}
    )


def a_gzipped_pickle_beside(model: Path, marker: Path) -> None:
    (model / "table.bin").write_bytes(gzip.compress(pickle.dumps(Touch(marker))))


def a_loader_of_its_own(model: Path, marker: Path) -> None:
    (model / "code").mkdir()
    (model / "code" / "loader.py").write_text(f"open({str(marker)!r}, 'w')\ndef _load_pyfunc(path): return None\n")
    describe(model, {"loader_module": "loader", "code": "code"})


def a_loader_from_elsewhere(model: Path, marker: Path) -> None:
    describe(model, {"loader_module": "antigravity"})


def modules_of_its_own(model: Path, marker: Path) -> None:
    (model / "code").mkdir()
    (model / "code" / "numpy.py").write_text(f"open({str(marker)!r}, 'w')\n")
    describe(model, {"code": "code"})


def modules_in_another_flavor(model: Path, marker: Path) -> None:
    describe(model, sklearn={"code": "code"})


def modules_that_nobody_names(model: Path, marker: Path) -> None:
    (model / "sitecustomize.py").write_text(f"open({str(marker)!r}, 'w')\n")


def a_model_from_code(model: Path, marker: Path) -> None:
    (model / "agent.py").write_text(
        f"import mlflow\nopen({str(marker)!r}, 'w')\nmlflow.models.set_model(lambda x: x)\n"
    )
    describe(model, {"loader_module": "mlflow.pyfunc.model", "model_code_path": "agent.py"})


def a_pickled_python_model(model: Path, marker: Path) -> None:
    (model / "python_model.pkl").write_bytes(pickle.dumps(Touch(marker)))
    describe(model, {"loader_module": "mlflow.pyfunc.model", "python_model": "python_model.pkl"})


def its_own_list_of_trusted_types(model: Path, marker: Path) -> None:
    schema = {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode", "content": f"touch {marker}"}
    with zipfile.ZipFile(model / "model.skops", "w") as archive:
        archive.writestr("schema.json", json.dumps(schema))
    describe(model, sklearn={"skops_trusted_types": ["os.system", "builtins.exec"]})


def a_path_that_leads_out(model: Path, marker: Path) -> None:
    (model.parent / "outside.pkl").write_bytes(pickle.dumps(Touch(marker)))
    describe(model, {"model_path": "../outside.pkl"}, {"pickled_model": "../outside.pkl"})


def a_path_encoded_twice(model: Path, marker: Path) -> None:
    describe(model, {"model_path": "%252e%252e/outside.pkl"}, {"pickled_model": "%252e%252e/outside.pkl"})


def a_link_that_leads_out(model: Path, marker: Path) -> None:
    (model.parent / "outside.pkl").write_bytes(pickle.dumps(Touch(marker)))
    (model / "model.skops").unlink()
    (model / "model.skops").symlink_to(model.parent / "outside.pkl")


def an_archive_that_leads_out(model: Path, marker: Path) -> None:
    with zipfile.ZipFile(model / "model.skops", "a") as archive:
        archive.writestr("../../evil.py", "x")


def a_zip_bomb(model: Path, marker: Path) -> None:
    with (
        zipfile.ZipFile(model / "model.skops", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("0.npy", "w") as out,
    ):
        for _ in range(80):
            out.write(b"\0" * 2**20)


def an_endless_description(model: Path, marker: Path) -> None:
    with (model / "MLmodel").open("a") as text:
        text.write("#" * MAX_MLMODEL_BYTES)


def a_tag_that_makes_an_object(model: Path, marker: Path) -> None:
    (model / "MLmodel").write_text(f"flavors: !!python/object/apply:os.system ['touch {marker}']\n")


KINDS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "1 pickle": (a_pickle, "saved as 'cloudpickle'"),
    "1 pickle, protocol 0": (a_pickle_of_the_oldest_protocol, "saved as 'pickle'"),
    "1 pickle named skops": (a_pickle_named_skops, "not in skops' format"),
    "1 pickle beside": (a_pickle_of_which_mlmodel_does_not_speak, "notes.txt is a pickle"),
    "1 pickle in a model inside": (a_second_model_inside, "save it with serialization_format"),
    "2 gzip pickle": (a_gzipped_pickle, "not in skops' format"),
    "2 gzip pickle beside": (a_gzipped_pickle_beside, "table.bin is a gzip stream"),
    "3 loader_module": (a_loader_of_its_own, "asks to be loaded by 'loader'"),
    "3 loader_module, installed": (a_loader_from_elsewhere, "asks to be loaded by 'antigravity'"),
    "4 code/": (modules_of_its_own, "brings modules of its own"),
    "4 code/ of another flavor": (modules_in_another_flavor, "brings modules of its own"),
    "4 code that nobody names": (modules_that_nobody_names, r"sitecustomize\.py is code"),
    "5 models from code": (a_model_from_code, "asks to be loaded by 'mlflow.pyfunc.model'"),
    "5 pickled Python model": (a_pickled_python_model, "asks to be loaded by 'mlflow.pyfunc.model'"),
    "6 skops trust list": (its_own_list_of_trusted_types, r"asks to trust the types \['builtins.exec', 'os.system'\]"),
    "7 path traversal": (a_path_that_leads_out, "leads out of the model"),
    "7 path, encoded twice": (a_path_encoded_twice, "leads out of the model"),
    "7 link": (a_link_that_leads_out, "a link or no file"),
    "7 path in the archive": (an_archive_that_leads_out, "leads out of the model"),
    "8 zip bomb": (a_zip_bomb, "grows from .* bytes"),
    "8 endless description": (an_endless_description, "more than 1,048,576 bytes"),
    "YAML that makes objects": (a_tag_that_makes_an_object, "describes no Python model"),
}

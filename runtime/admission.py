"""Admission of a model before it is loaded: a signature of a trusted key, and allowed content only.

The content is read as data, before any of it runs, and compared with an allow-list. Allowed by default are MLflow's
loader for scikit-learn, one file in skops' format, and types of scikit-learn or of the list below. Pickles in any form,
modules of the model's own (`code/`) and models that are programs are not. model.yaml (`serving`) names what else is
allowed, and the model's signer signs those permissions.
"""

import logging
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from runtime.signatures import ModelPermissions, SignedStatement, UntrustedSignature, verify_folder

__all__ = ["ModelPermissions", "UnsafeModel", "UntrustedSignature", "admit_model", "pinned_keys"]

ALLOWED_LOADERS = ("mlflow.sklearn",)
TRUSTED_TYPES = (
    "collections.OrderedDict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRegressor",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)
"""Types that skops may restore besides those of scikit-learn, numpy and scipy. The list in the model's own file does
not count: whoever made the model wrote it."""

MAX_FILES = 2_000
MAX_BYTES = 4 * 2**30
MAX_MLMODEL_BYTES = 2**20
MAX_COMPRESSION_RATIO = 200
"""Maximum ratio of an archive's extracted bytes to its own, if it grows above 64 MiB."""

_CODE_SUFFIXES = (".py", ".pyc", ".pyo", ".pyd", ".so", ".dll", ".dylib", ".pth", ".sh", ".whl", ".egg")
_COMPRESSED_PREFIXES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x78\x01": "zlib",
    b"\x78\x5e": "zlib",
    b"\x78\x9c": "zlib",
    b"\x78\xda": "zlib",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}
_PICKLE_PREFIXES = tuple(bytes([0x80, protocol]) for protocol in range(6))
_PATH_KEYS = ("model_path", "pickled_model", "data", "code", "python_model", "config", "env")
"""Keys of MLmodel that name files. `model_code_path` is not one of them: it says where the program came from, and
MLflow reads the file of that name in the model's folder."""


class UnsafeModel(Exception):
    """The folder contains something that must not be loaded; the message names it and the remedy."""


def admit_model(folder: Path, keys: Sequence[str] | None, signature: Path | None = None) -> SignedStatement:
    """Verify and inspect a model, and return what its signer states about it: nothing with `keys` None (unsigned).

    Raises:
        UntrustedSignature: no trusted key signed exactly these files. None of the model's code was run.
        UnsafeModel: a loader, format, type or file that is not allowed; a path that leads out of the folder; an archive
            that would fill the disk.
    """
    statement = SignedStatement({}) if keys is None else verify_folder(folder, keys, signature)
    permissions = statement.permissions
    _check_links(folder)
    described = _read_mlmodel(folder)
    flavor = described["flavors"]["python_function"]
    _check_loader(str(flavor.get("loader_module")), permissions)
    _check_custom_code(described, flavor, permissions)
    _check_paths(described)
    _check_sklearn(folder, described["flavors"], flavor, permissions)
    _check_files(folder, permissions)
    return statement


def pinned_keys(environment: Mapping[str, str]) -> list[str] | None:
    """Return the trusted keys of `RATCHET_TRUSTED_KEYS`, where spaces separate them.

    None if `RATCHET_UNSIGNED=allow` disables signatures, which is logged.
    """
    if environment.get("RATCHET_UNSIGNED") == "allow":
        logging.getLogger("ratchet.scoring").warning("RATCHET_UNSIGNED=allow: signatures are not verified")
        return None
    return environment.get("RATCHET_TRUSTED_KEYS", "").split()


def _check_links(folder: Path) -> None:
    """Refuse links, devices and pipes: their content may change between the check and the load."""
    for path in folder.rglob("*"):
        kind = path.lstat().st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            raise UnsafeModel(f"{path.relative_to(folder)} is a link or no file; put the file itself there")


def _read_mlmodel(folder: Path) -> dict[str, Any]:
    path = folder / "MLmodel"
    try:
        if path.stat().st_size > MAX_MLMODEL_BYTES:
            raise UnsafeModel(f"MLmodel has more than {MAX_MLMODEL_BYTES:,} bytes")
        described = yaml.safe_load(path.read_text(encoding="utf-8"))
        flavors = described["flavors"]
        flavors["python_function"]["loader_module"]
    except FileNotFoundError:
        raise UnsafeModel(f"{folder.name} holds no file MLmodel; it is not an MLflow model") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError) as cause:
        raise UnsafeModel(f"MLmodel describes no Python model: {type(cause).__name__}") from cause
    if not all(isinstance(flavor, dict) for flavor in flavors.values()):
        raise UnsafeModel("MLmodel has a flavor that is no mapping")
    return dict(described)


def _check_loader(loader: str, allow: ModelPermissions) -> None:
    known = (*ALLOWED_LOADERS, *allow.loaders)
    if loader not in known:
        remedy = f"allowed are {', '.join(known)}; name it in model.yaml under serving.loaders if it must be"
        raise UnsafeModel(f"the model asks to be loaded by {loader!r}; {remedy}")


def _check_custom_code(described: Mapping[str, Any], flavor: Mapping[str, Any], allow: ModelPermissions) -> None:
    if allow.allow_custom_code:
        return
    remedy = "log it without, or allow it in model.yaml under serving.allow_custom_code"
    if any(each.get("code") for each in described["flavors"].values()):
        raise UnsafeModel(f"the model brings modules of its own (code_paths); {remedy}")
    if flavor.get("model_code_path") or flavor.get("python_model"):
        raise UnsafeModel(f"the model is a program (models from code, or a pickled one); {remedy}")


def _check_paths(described: Mapping[str, Any]) -> None:
    """Refuse paths that lead out of the folder, in all flavors."""
    for name, value in _nested_texts(described["flavors"]):
        path = PurePosixPath(value)
        odd = any(ord(sign) < 32 for sign in value) or "\\" in value or "%" in value or "://" in value
        if name in _PATH_KEYS and (path.is_absolute() or ".." in path.parts or odd):
            raise UnsafeModel(f"MLmodel names the path {value!r} ({name}), which leads out of the model; save it anew")


def _nested_texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in nested mappings and lists, with its key."""
    if isinstance(value, dict):
        for key, inner in value.items():
            own = str(key) if str(key) in _PATH_KEYS else name
            yield from _nested_texts(inner, own)
    elif isinstance(value, list):
        for inner in value:
            yield from _nested_texts(inner, name)
    elif isinstance(value, str):
        yield name, value


def _check_sklearn(
    folder: Path, flavors: Mapping[str, Any], flavor: Mapping[str, Any], allow: ModelPermissions
) -> None:
    if flavor["loader_module"] != "mlflow.sklearn":
        return
    sklearn = flavors.get("sklearn", {})
    file, form = str(sklearn.get("pickled_model")), sklearn.get("serialization_format")
    if form != "skops" or flavor.get("model_path") != file or "/" in file or "data" in flavor:
        raise UnsafeModel(f"the model is saved as {form!r}; save it with serialization_format='skops'")
    if strange := set(map(str, sklearn.get("skops_trusted_types") or ())) - {*TRUSTED_TYPES, *allow.trusted_types}:
        remedy = "name them in model.yaml under serving.trusted_types if they must be"
        raise UnsafeModel(f"the model asks to trust the types {sorted(strange)}; {remedy}")
    if not zipfile.is_zipfile(folder / file):
        raise UnsafeModel(f"{file} is not in skops' format; save it with serialization_format='skops'")


def _check_files(folder: Path, allow: ModelPermissions) -> None:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if len(paths) > MAX_FILES:
        raise UnsafeModel(f"the model has {len(paths):,} files; at most {MAX_FILES:,} are loaded")
    total = 0
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if path.name == "MLmodel" and name != "MLmodel":
            raise UnsafeModel(f"{name} describes a second model inside the first; save one")
        total += path.stat().st_size
        if not allow.allow_custom_code and path.suffix.lower() in _CODE_SUFFIXES:
            raise UnsafeModel(f"{name} is code; log the model without it, or allow it under serving.allow_custom_code")
        _check_content(path, name)
    if total > MAX_BYTES:
        raise UnsafeModel(f"the model has {total:,} bytes; at most {MAX_BYTES:,} are loaded")


def _check_content(path: Path, name: str) -> None:
    with path.open("rb") as stream:
        start = stream.read(8)
    if start.startswith(_PICKLE_PREFIXES):
        raise UnsafeModel(f"{name} is a pickle, which runs code when it is read; save the model in skops' format")
    if kind := next((kind for mark, kind in _COMPRESSED_PREFIXES.items() if start.startswith(mark)), ""):
        raise UnsafeModel(f"{name} is a {kind} stream, whose content nobody has seen; save it as it is")
    if start.startswith(b"PK") or path.suffix == ".skops":
        _check_archive(path, name)


def _check_archive(path: Path, name: str) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as cause:
        raise UnsafeModel(f"{name} is a damaged archive: {cause}") from cause
    grown = sum(entry.file_size for entry in entries)
    size = path.stat().st_size
    if len(entries) > MAX_FILES * 10 or grown > MAX_BYTES or grown > max(64 * 2**20, size * MAX_COMPRESSION_RATIO):
        raise UnsafeModel(f"{name} grows from {size:,} to {grown:,} bytes in {len(entries):,} files; it is not opened")
    for entry in entries:
        inside = PurePosixPath(entry.filename)
        if inside.is_absolute() or ".." in inside.parts or "\\" in entry.filename:
            raise UnsafeModel(f"{name} holds {entry.filename!r}, which leads out of the model")
        if entry.filename.endswith((".pkl", ".pickle", ".joblib")):
            raise UnsafeModel(f"{name} holds the pickle {entry.filename!r}")

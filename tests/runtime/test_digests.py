"""Digests of files and folders: the values that `sha256sum` prints, computed in one module only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import digests
from tests.checkout import ROOT

ROOMS = ("runtime", "blocks", "tasks", "flows", "deployments", "services", "local", "ratchet")
HASHES = {"sha256", "new", "update", "bytes_digest", "text_digest"}
A, AB, Z = (  # sha256sum
    "2c8b08da5ce60398e1f19af0e5dccc744df274b826abe585eaba68c525434806",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "c6a12698582fc1104ea24107a2d7268145ff06ef859707729d01fd060897f067",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files, one of them empty, and an empty folder."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_bytes(b"one\n")
    (tmp_path / "a-b").write_bytes(b"")
    (tmp_path / "sub" / "z").write_bytes("Zoë".encode())
    return tmp_path


def test_texts_and_files_have_the_digests_of_sha256sum(folder: Path) -> None:
    assert digests.file_digest(folder / "a.txt") == digests.bytes_digest(b"one\n") == A
    assert digests.text_digest("Zoë") == digests.file_digest(folder / "sub" / "z") == Z
    assert list(digests.file_digests(folder).items()) == [("a-b", AB), ("a.txt", A), ("sub/z", Z)]


def test_a_folder_has_the_digest_of_what_sha256sum_prints(folder: Path) -> None:
    whole = "7358427c1fa26d717705ccfb8e65a73d26864ecf6632ae38ffe973d995d09e70"
    assert digests.folder_digest(folder) == digests.listing_digest({"sub/z": Z, "a.txt": A, "a-b": AB}) == whole


def test_a_text_that_is_not_unicode_has_a_digest_only_where_that_was_asked_for() -> None:
    with pytest.raises(UnicodeEncodeError):
        digests.text_digest("\ud800")
    assert digests.text_digest("\ud800", "surrogatepass") == digests.bytes_digest(b"\xed\xa0\x80")


def test_files_are_hashed_and_folders_are_listed_in_one_module_alone() -> None:
    paths = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    assert len(paths) > 100
    others = [path for path in paths if path != ROOT / "runtime" / "digests.py"]
    found = [f"{path.relative_to(ROOT)}:{line}" for path in others for line in sorted(twins(path.read_text()))]
    assert not found, "use runtime.digests"


TWINS = {
    "a file read whole": "hashlib.sha256(path.read_bytes()).hexdigest()",
    "by its own name": "sha256(path.read_bytes())",
    "through a variable": "def f(path):\n    name, data = path.name, path.read_bytes()\n    return hashlib.sha256(data)",
    "into ours": "bytes_digest(path.read_bytes())",
    "piece by piece": "hashlib.file_digest(stream, 'sha256')",
    "a listing": "f'{digest}  {name}\\n'",
    "a function of the same name": "def folder_digest(folder): ...",
}


@pytest.mark.parametrize("source", TWINS.values(), ids=TWINS)
def test_a_twin_is_found(source: str) -> None:
    assert set(twins(source))


def twins(source: str) -> Iterator[int]:
    """Yield the lines outside that module that hash a file, or list or name a folder's digest."""
    tree = ast.parse(source)
    yield from hashed_whole(tree, set())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assigned = [each for each in ast.walk(node) if isinstance(each, ast.Assign) and reads(each.value)]
            yield from hashed_whole(
                node, {name for each in assigned for target in each.targets for name in names(target)}
            )
        if is_digest_of_its_own(node):
            yield node.lineno  # type: ignore[attr-defined] # each of these nodes has a line number


def hashed_whole(scope: ast.AST, held: set[str]) -> Iterator[int]:
    """Yield the lines that hash a file's whole content read before, or a name that holds it."""
    for node in ast.walk(scope):
        if (
            isinstance(node, ast.Call)
            and called(node) in HASHES
            and any(reads(each) or held & names(each) for each in node.args)
        ):
            yield node.lineno


def is_digest_of_its_own(node: ast.AST) -> bool:
    """Return whether it calls `hashlib.file_digest`, redefines a digest of ours, or writes a line of `sha256sum`."""
    if isinstance(node, ast.Call):
        return called(node) == "file_digest" and len(node.args) > 1
    if isinstance(node, ast.FunctionDef):
        return node.name.strip("_") in {"file_digest", "folder_digest", "listing_digest"}
    return isinstance(node, ast.JoinedStr) and [
        each.value for each in node.values if isinstance(each, ast.Constant)
    ] == ["  ", "\n"]


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def reads(node: ast.AST) -> bool:
    return any(isinstance(each, ast.Call) and called(each) == "read_bytes" for each in ast.walk(node))


def names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
